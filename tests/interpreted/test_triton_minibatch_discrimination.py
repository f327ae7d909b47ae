"""The Triton kernels of minibatch_discrimination: the CPU kernels' tests where they are short."""

from __future__ import annotations

import pytest
import torch
from cases import DTYPES
from test_minibatch_discrimination import (  # noqa: F401 - tests that run as they are
    assert_parity,
    double_input,
    projected,
    test_coincident_samples_have_derivatives_of_zero,
    test_compiled_equals_eager,
    test_far_samples_are_not_close,
    test_known_answer,
    test_no_samples_no_features_no_numbers,
    test_opcheck,
    test_samples_far_from_the_origin,
    test_third_derivative_raises,
    test_writing_into_the_input_before_backward_raises,
)
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination

# Samples around a block, numbers around a chunk, and rows of which some blocks hold none.
CASES = [((1, 1, 1), 0, None), ((16, 2, 3), 0, None), ((17, 1, 16), 0, None), ((19, 2, 17), 0, None)]
CASES += [((50, 1, 5), 18, 30), ((20, 1, 37), 3, None), ((20, 2, 2), 5, 5)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    for at, (shape, begin, end) in enumerate(CASES):
        layout = ("contiguous", "columns", "transposed")[at % 3]
        assert_parity(projected(shape, dtype, layout), begin, end, f"{shape}, rows {begin} to {end}, {layout}")


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    for begin, end in ((0, -1), (1, 3)):
        function = lambda m, b=begin, e=end: minibatch_discrimination(m, begin=b, end=e)  # noqa: E731
        assert gradcheck(function, double_input(), fast_mode=True)
        assert gradgradcheck(function, double_input(), fast_mode=True)
