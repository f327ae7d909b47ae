"""mmd2_with_variance: against its definition over all tuples of points, by simulation, and as what kernels learn by."""

from __future__ import annotations

import itertools

import pytest
import torch
from cases import assert_same_error, leaf, samples
from tolerances import KERNEL_VALUE, VARIANCE_FAR_FROM_ORIGIN, assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import MMDEstimate, mmd2, mmd2_with_variance, tiled
from wgan_kernels.kernels import RBF, InverseMultiquadric, Linear

DOUBLE = torch.float64
KERNEL = RBF([0.8, 2.0])


def k(x: Tensor, y: Tensor) -> Tensor:
    s = (x[:, None] - y[None]).square().sum(-1)
    return torch.exp(-s / (2 * 0.8**2)) + torch.exp(-s / 8)


def over_all_tuples(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """value; value^2 - the mean of h h' over all pairs of quadruples without a common point."""
    xx, yy, xy = k(x, x), k(y, y), k(x, y)
    i = torch.tensor(list(itertools.permutations(range(len(x)), 4)))[:, None]
    j = torch.tensor(list(itertools.permutations(range(len(y)), 4)))[None]

    def h(a: int, b: int) -> Tensor:
        i0, i1, j0, j1 = i[..., a], i[..., b], j[..., a], j[..., b]
        return xx[i0, i1] + yy[j0, j1] - xy[i0, j1] - xy[i1, j0]

    return h(0, 1).mean(), h(0, 1).mean() ** 2 - (h(0, 1) * h(2, 3)).mean()


def points(N: int, M: int, D: int = 2) -> tuple[Tensor, Tensor]:
    return samples((N, D), DOUBLE, seed=N), samples((M, D), DOUBLE, seed=50 + M) * 1.5 + 0.3


@pytest.mark.parametrize(("N", "M"), [(4, 4), (6, 4), (4, 5), (5, 6)])
@pytest.mark.parametrize("size", [1, 1 << 26], ids=["row by row", "whole"])
def test_equals_the_definition(N: int, M: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled, "_BYTES_PER_BLOCK", size)
    x, y = points(N, M)
    estimate = mmd2_with_variance(x, y, KERNEL)
    assert isinstance(estimate, MMDEstimate)
    for found, expected in zip(estimate, over_all_tuples(x, y), strict=True):
        assert_same_by_another_route(found, expected)
    assert_same_by_another_route(estimate.value, mmd2(x, y, KERNEL))


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_its_mean_is_the_variance_of_the_value(shift: float) -> None:
    trials, N, M = 400, 12, 8
    x, y = samples((trials, N, 1), DOUBLE, seed=1), samples((trials, M, 1), DOUBLE, seed=2) + shift
    values, variances = map(torch.stack, zip(*[mmd2_with_variance(a, b, KERNEL) for a, b in zip(x, y)]))
    squares = (values - values.mean()).square()
    error = (squares.std() ** 2 + variances.std() ** 2).sqrt() / trials**0.5
    assert (variances.mean() - squares.mean()).abs() < 4 * error < squares.mean()


def test_derivatives() -> None:
    x, y = (leaf(each) for each in points(5, 4))
    function = lambda x, y: tuple(mmd2_with_variance(x, y, KERNEL))  # noqa: E731
    assert gradcheck(function, (x, y)) and gradgradcheck(function, (x, y))
    results = []
    for estimate in (mmd2_with_variance(x, y, KERNEL), over_all_tuples(x, y)):
        results.append(torch.autograd.grad(estimate[1], (x, y)))
    for ours, expected in zip(*results, strict=True):
        assert_same_by_another_route(ours, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dtypes(dtype: torch.dtype) -> None:
    x, y = (each.to(dtype) for each in points(5, 6))
    found = mmd2_with_variance(x, y, KERNEL)
    for ours, plain, exact in zip(
        found, over_all_tuples(x.float(), y.float()), over_all_tuples(x.double(), y.double())
    ):
        assert ours.dtype == torch.float32
        assert_as_good_as_torch(ours, plain, exact, terms=KERNEL_VALUE[torch.float32])


def test_a_linear_kernel_far_from_the_origin() -> None:
    """Values of 2e4 whose differences are 1e-4: their squares have no digits left for these."""
    x, y = (0.01 * each for each in points(6, 7))
    near = mmd2_with_variance(x, y, Linear())
    far = mmd2_with_variance(x + 100, y + 100, Linear())
    for a, b in zip(near, far, strict=True):
        assert a.item() == pytest.approx(b.item(), rel=VARIANCE_FAR_FROM_ORIGIN) and a != 0


def test_a_kernel_learns_to_see_the_difference() -> None:
    """Only the second of two features differs: maximising the ratio stretches it against the first."""
    scales = leaf(torch.zeros(2, dtype=DOUBLE))
    optimizer = torch.optim.Adam([scales], lr=0.1, maximize=True)
    spread = torch.tensor([3.0, 0.3], dtype=DOUBLE)
    x, y = samples((60, 2), DOUBLE, seed=1) * spread, samples((50, 2), DOUBLE, seed=2) * spread
    y[:, 1] += 0.4

    def ratio() -> Tensor:
        value, variance = mmd2_with_variance(x * scales.exp(), y * scales.exp(), RBF(1.0))
        return value / variance.clamp(min=1e-8).sqrt()

    first = ratio().item()
    for _ in range(25):
        optimizer.zero_grad()
        ratio().backward()
        optimizer.step()
    assert ratio().item() > 1.5 * first and scales[1] > scales[0] + 1


def test_what_it_refuses() -> None:
    x, y = torch.zeros(4, 3), torch.zeros(5, 3)
    kernel = InverseMultiquadric(1.0)
    call = mmd2_with_variance
    assert_same_error(lambda: call(x[:3], y, kernel), ValueError, "x must hold at least 4 points, got 3")
    assert_same_error(lambda: call(x, y[:3], kernel), ValueError, "y must hold at least 4 points, got 3")
    assert_same_error(lambda: call(x[None], y[None], kernel), ValueError, "x must be points of shape")
    assert_same_error(lambda: call(x, y.double(), kernel), TypeError, "y must have the dtype of x")
    assert_same_error(lambda: call(x, y, 1.0), TypeError, "kernel must be one of", "float")


def test_learned_numbers_of_the_kernel() -> None:
    x, y = points(5, 6)
    numbers = [leaf(torch.tensor(value, dtype=DOUBLE)) for value in (0.8, 1.4)]
    function = lambda a, b: tuple(mmd2_with_variance(x, y, a * RBF(b) + Linear()))  # noqa: E731
    assert gradcheck(function, numbers) and gradgradcheck(function, numbers)
