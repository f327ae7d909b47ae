"""The Triton kernels of group_norm: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import DTYPES, samples
from test_group_norm import (  # noqa: F401 - tests that run as they are
    assert_parity,
    params_for,
    test_far_from_zero,
    test_known_answer,
    test_no_samples_and_no_positions,
    test_numbers_that_are_all_alike,
    test_what_is_not_finite_stays_in_its_group,
)
from test_group_norm_operators import test_compiled_equals_eager, test_third_derivative_raises  # noqa: F401
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels._triton._channel_sums import ROWS
from wgan_kernels._triton.group_norm import BLOCK
from wgan_kernels.ops.group_norm import group_norm

# Shape, groups, and how many dimensions a layer has: around a block of a group, and of positions and channels.
CASES = [
    ((3, 7), 1, 1),
    ((2, BLOCK - 1), 1, 1),
    ((2, BLOCK + 1), 1, 1),
    ((3, 2, 3, 4), 1, 2),
    ((5, 12), 3, 0),
    ((2, 6, 3, 3), 3, 0),
    ((3, 34, 5, 7), 34, 0),
    ((2 * ROWS + 1, 4, 3), 2, 0),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    layouts = itertools.cycle(["contiguous", "permuted", "offset", "columns", "transposed"])
    for (shape, groups, layer_dims), affine in itertools.product(CASES, (True, False)):
        layout = next(layouts)
        params = params_for(shape, layer_dims, dtype) if affine else [None, None]
        where = f"{shape}, {groups}, {layer_dims}, {layout}"
        assert_parity(samples(shape, dtype, layout, 1), params, groups, layer_dims, where, layout)


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    inputs = [samples((2, 4, 2), torch.float64, seed=1), *params_for((2, 4, 2), 0, torch.float64)]
    inputs = [t.requires_grad_() for t in inputs]
    function = lambda x, w, b: group_norm(x, 2, w, b, 1e-5)  # noqa: E731
    assert gradcheck(function, inputs, fast_mode=True) and gradgradcheck(function, inputs, fast_mode=True)
