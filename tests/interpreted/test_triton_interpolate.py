"""The Triton kernel of interpolate: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import DTYPES, LAYOUTS, leaf, samples
from test_interpolate import (  # noqa: F401 - tests that run as they are
    mixing,
    test_compiled_equals_eager,
    test_dtypes_are_promoted_as_torch_does,
    test_gradients_reach_only_what_asks_for_them,
    test_known_answer_and_the_ends_of_the_line,
    test_nan_and_infinity_propagate,
    test_opcheck,
    test_samples_written_after_the_forward_are_noticed,
    test_the_draw_is_torch_rand_bit_for_bit,
)
from tolerances import assert_within_one_ulp
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import interpolate, use_backend

SHAPES = [(0, 3), (3, 0), (1, 1), (7,), (2, 3, 5, 7), (2, 2047), (1, 2048), (2, 2049), (3, 4097)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_is_within_one_ulp_of_the_reference(backend: str, dtype: torch.dtype) -> None:
    layouts = itertools.cycle(LAYOUTS)
    for shape in SHAPES * 2:
        layout = next(layouts)
        real, fake = samples(shape, dtype, layout, 1), samples(shape, dtype, "contiguous", 2)
        mix = mixing(shape[0], dtype)
        ours = interpolate(real, fake, mix)
        with use_backend("reference"):
            theirs = interpolate(real, fake, mix)
        assert_within_one_ulp(ours, theirs, f"{shape}, {layout}")


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    inputs = [leaf(samples((2, 2), torch.float64, seed=seed)) for seed in (1, 2)]
    inputs.append(leaf(samples((2,), torch.float64, seed=3)))
    assert gradcheck(interpolate, inputs, fast_mode=True) and gradgradcheck(interpolate, inputs, fast_mode=True)
