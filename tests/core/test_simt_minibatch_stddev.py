"""minibatch_stddev and its derivatives in CUDA, run by the CPU, against the formulas in float64."""

import numpy as np
import pytest
from core_arrays import QUICK, SIMT_DTYPES, for_any_order
from test_core_minibatch_stddev import check_all

THREADS, CHUNK = 256, 4096  # of a block, and the numbers that it goes over

SHAPES = [(1, 3, 2, 5), (4, 0, 1, 5), (2, 1, 1, 1), (4, 2, 3, 8), (5, 3, 1, THREADS - 1), (2, 2, 2, THREADS + 1)]
LARGE = [(2, 1, 1, CHUNK), (2, 1, 2, CHUNK + 1), (1, 2, 1, 2 * CHUNK + 3)]


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_every_pass(simt, dtype):
    rng = np.random.default_rng(72)
    for at, shape in enumerate(SHAPES[3:] + LARGE[1:2] if QUICK else SHAPES + LARGE):
        check_all(simt, lambda call: for_any_order(simt, call), rng, dtype, shape, at % 3)
