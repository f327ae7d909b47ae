"""Every kernel function, and sums of them: the tests of the CPU kernels, on functions that go through the GPU."""

from __future__ import annotations

import os

import pytest
import torch
from cases import DTYPES

import wgan_kernels as wk
from wgan_kernels import pair_sums

if os.environ.get("WGAN_KERNELS_TEST_GPU") != "1":  # where they are asked for, none may be left out quietly
    pytest.importorskip("hypothesis", reason="the tests that are used here need hypothesis")

import test_kernel_functions as of_kernel_functions  # noqa: E402
from test_gpu_parity import on_gpu  # noqa: E402


@pytest.fixture(autouse=True)
def through_the_gpu(native_on_gpu: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in ((wk, "mmd2"), (wk, "kernel_matvec"), (pair_sums, "matvec")):
        monkeypatch.setattr(module, name, on_gpu(getattr(module, name)))


@of_kernel_functions.EACH
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_derivatives(dtype: torch.dtype, kernel: wk.kernels.Kernel) -> None:
    of_kernel_functions.test_values_and_derivatives("native", dtype, kernel)


@of_kernel_functions.EACH
def test_gradcheck_and_gradgradcheck(kernel: wk.kernels.Kernel) -> None:
    of_kernel_functions.test_gradcheck_and_gradgradcheck("native", kernel)


@pytest.mark.parametrize("name", of_kernel_functions.LEARNED)
def test_parameters_and_weights_are_learned(name: str) -> None:
    of_kernel_functions.test_parameters_and_weights_are_learned("native", name)


@of_kernel_functions.EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_at_its_edges(dtype: torch.dtype, kernel: wk.kernels.Kernel) -> None:
    of_kernel_functions.test_coincident_points("native", dtype, kernel)
    of_kernel_functions.test_points_far_from_the_origin("native", dtype, kernel)


def test_values_of_float32_are_right_to_a_few_roundings() -> None:
    """Which is what the approximations of the hardware leave of them."""
    of_kernel_functions.test_values_of_float32_are_right_to_a_few_roundings(None)


def test_infinite_and_missing_numbers_are_not_hidden() -> None:
    of_kernel_functions.test_infinite_and_missing_numbers_are_not_hidden("native")
