"""The Triton kernels of norm_penalty: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import DTYPES, assert_same_bits, leaf, samples
from test_norm_penalty import (  # noqa: F401 - tests that run as they are
    REDUCTIONS,
    SETTINGS,
    assert_parity,
    test_a_gradient_written_after_the_forward_is_noticed,
    test_compiled_equals_eager,
    test_known_answer,
    test_no_samples_and_no_features,
    test_opcheck,
    test_outer_gradients_of_any_layout,
    test_third_derivative_raises,
    test_tiny_gradients_have_finite_derivatives,
)
from tolerances import KNOWN
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import norm_penalty
from wgan_kernels._triton import norm_penalty as module
from wgan_kernels._triton.norm_penalty import BLOCK, PART
from wgan_kernels.ops.norm_penalty import weighted_norm_penalty

SHAPES = [
    (1, 1),
    (7,),
    (5, 2),
    (2, 3, 5, 7),
    (2, BLOCK - 1),
    (1, BLOCK + 1),
    (1, PART - 1),
    (2, PART + 1),
    (8, 3),
    (9, 2),
]


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(
    backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ROWS", 8)
    settings = itertools.cycle(itertools.product(SETTINGS, REDUCTIONS))
    layouts = itertools.cycle(["contiguous", "offset", "permuted", "columns", "transposed", "expanded"])
    for shape in SHAPES:
        layout, ((target, one_sided), reduction) = next(layouts), next(settings)
        grad, direction = samples(shape, dtype, layout, 1), samples(shape, dtype, "contiguous", 2)
        chosen = {"target": target, "one_sided": one_sided, "reduction": reduction}
        assert_parity(grad, direction, chosen, f"{shape}, {layout}, {chosen}")


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("target", "one_sided"), SETTINGS)
def test_every_setting(backend: str, target: float, one_sided: bool, reduction: str) -> None:
    chosen = {"target": target, "one_sided": one_sided, "reduction": reduction}
    grad, direction = samples((6, 14), torch.float64, seed=3), samples((6, 14), torch.float64, seed=4)
    grad[1] = 0
    if target == 0 or reduction != "none":  # the plain formula has no derivative at 0 otherwise
        grad[1] = 1e-3
    assert_parity(grad[2:], direction[2:], chosen, str(chosen))
    x = leaf(grad[:2].abs())
    first = torch.autograd.grad(norm_penalty(x, **chosen).sum(), x, create_graph=True)[0]
    (second,) = torch.autograd.grad(first.sum(), x)
    assert first.isfinite().all() and second.isfinite().all()


@pytest.mark.parametrize(("target", "reduction"), [(1.0, "mean"), (0.0, "none")])
def test_gradcheck_and_gradgradcheck(backend: str, target: float, reduction: str) -> None:
    x = leaf(samples((2, 3), torch.float64, seed=5))
    function = lambda x: norm_penalty(x, target=target, reduction=reduction)  # noqa: E731
    assert gradcheck(function, (x,)) and gradgradcheck(function, (x,), fast_mode=True)


def test_same_bits_twice(backend: str) -> None:
    x = leaf(samples((3, PART + 5), torch.float32, seed=1))
    results = []
    for _ in range(2):
        value = norm_penalty(x)
        (first,) = torch.autograd.grad(value, x, create_graph=True)
        results.append((value, first, *torch.autograd.grad(first.square().sum(), x)))
    for once, again in zip(*results, strict=True):
        assert_same_bits(once.detach(), again.detach())


def test_sums_run_in_float64(backend: str) -> None:
    x = torch.full((1, 2 * PART), 1e-4)
    x[0, 0] = 1.0  # in float32 the other squares would vanish beside its own
    exact = (1 + (2 * PART - 1) * x[0, 1].double() ** 2).sqrt()
    value, norms = weighted_norm_penalty(x, target=0.0, one_sided=False, reduction="sum", weight=1.0)
    assert abs(norms.item() / exact.item() - 1) < KNOWN
    assert value.item() == (exact**2).float().item()
