"""The Triton kernels of minibatch_stddev: the CPU kernels' tests where they are short."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES, samples
from test_minibatch_stddev import (  # noqa: F401 - tests that run as they are
    assert_parity,
    double_input,
    test_compiled_equals_eager,
    test_equal_samples_have_derivatives_of_zero,
    test_known_answer,
    test_no_samples_and_no_numbers,
    test_opcheck,
    test_samples_far_from_the_origin,
    test_third_derivative_raises,
    test_writing_into_the_input_before_backward_raises,
)
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops.minibatch_stddev import minibatch_stddev

# Numbers around a block, in some layouts.
CASES = [((4, 1), 4, 1, "contiguous"), ((6, 6, 5), 3, 2, "transposed"), ((4, 2, 16, 16), 2, 1, "permuted")]
CASES += [((2, 1, 513), 2, 1, "columns"), ((4, 4, 3, 5), 2, 2, "permuted"), ((4, 2, 511), 4, 2, "offset")]


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    for shape, size, blocks, layout in CASES:
        x, direction = samples(shape, dtype, layout, 1), samples(shape, dtype, seed=2)
        assert_parity(x, direction, size, blocks, f"{shape}, {size}, {blocks}, {layout}")


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    function = lambda x: minibatch_stddev(x, group_size=2, num_channels=2)  # noqa: E731
    assert gradcheck(function, double_input(), fast_mode=True)
    assert gradgradcheck(function, double_input(), fast_mode=True)
