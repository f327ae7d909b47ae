"""The Triton kernels of bias_leaky_relu: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import DTYPES, LAYOUTS, leaf, samples
from test_bias_leaky_relu import (  # noqa: F401 - tests that run as they are
    SETTINGS,
    assert_parity,
    test_a_float32_bias_beside_half_floats,
    test_bounds_that_the_dtype_cannot_hold_are_none,
    test_channels_last_stays,
    test_compiled_equals_eager,
    test_gradients_reach_only_what_asks_for_them,
    test_known_answer,
    test_opcheck,
    test_second_derivatives_along_one_gradient_alone,
    test_the_kinks_are_torchs,
    test_without_channels,
)
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels._triton.bias_leaky_relu import CHANNEL_ROW, COLUMN_ROWS, LONG_ROW
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu

SHAPES = [
    (0, 3),
    (3, 0, 2),
    (2, 3, 0),
    (1, 1),
    (7, 5),
    (2, 3, 5, 7),
    (2, 3, CHANNEL_ROW - 1),
    (3, 3, CHANNEL_ROW),
    (1, 2, LONG_ROW + 1),
    (1, 1, 4097),
    (COLUMN_ROWS + 1, 3),
    (COLUMN_ROWS, 65),
    (9, 257),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    layouts, settings = itertools.cycle(LAYOUTS), itertools.cycle(SETTINGS)
    for k, shape in enumerate(SHAPES):
        layout, chosen = next(layouts), next(settings)
        bias = None if k % 3 == 2 else samples(shape[1:2], dtype, seed=2)
        assert_parity(samples(shape, dtype, seed=1), bias, chosen, f"{shape}, {layout}, {chosen}", layout)


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    inputs = [leaf(samples((2, 2, 2), torch.float64, seed=1)), leaf(samples((2,), torch.float64, seed=2))]
    function = lambda x, bias: bias_leaky_relu(x, bias, 0.2, 1.4, 0.7)  # noqa: E731
    assert gradcheck(function, inputs, fast_mode=True) and gradgradcheck(function, inputs, fast_mode=True)
