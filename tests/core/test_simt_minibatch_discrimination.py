"""minibatch_discrimination and its derivatives in CUDA, run by the CPU, against the formulas in float64."""

import numpy as np
import pytest
from core_arrays import QUICK, SIMT_DTYPES, for_any_order, to_values
from test_core_minibatch_discrimination import check_all, forward, place

ROWS, CHUNK = 32, 16  # samples of a block, numbers that it loads at a time

CASES = [
    ((0, 3, 2), (0, 0)),
    ((1, 2, 3), (0, 1)),
    ((5, 0, 3), (0, 5)),
    ((5, 2, 0), (0, 5)),
    ((2, 1, 1), (0, 2)),
    ((ROWS - 1, 2, CHUNK), (0, ROWS - 1)),
    ((ROWS + 1, 2, CHUNK + 1), (0, ROWS + 1)),
    ((2 * ROWS + 3, 3, 5), (0, 2 * ROWS + 3)),
    ((ROWS + 9, 2, 2 * CHUNK + 3), (5, 22)),
    ((3 * ROWS, 1, 3), (ROWS, 2 * ROWS + 1)),
    ((3 * ROWS, 2, 3), (2 * ROWS + 7, 3 * ROWS)),
]


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_every_pass(simt, dtype):
    rng = np.random.default_rng(63)
    for shape, rows in CASES[4:-1:2] if QUICK else CASES:
        check_all(simt, lambda call: for_any_order(simt, call), rng, dtype, shape, rows)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_what_is_not_finite_stays_in_its_feature(simt, dtype):
    x = np.random.default_rng(64).normal(size=(20, 3, 4))
    x[7, 1, 2], x[3, 2, 0] = np.nan, np.inf
    (o,) = forward(simt, simt.Run(), dtype, place(x, dtype), (0, 20))
    value = to_values(o, dtype)
    assert np.isfinite(value[:, [0, 2]]).all() and np.isnan(value[:, 1]).all()
    assert value[3, 2] == 0
