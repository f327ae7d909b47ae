"""mmd2 with weights, in batches, and by the estimators for large samples: against plain formulas."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_error, compile_once, leaf, samples
from tolerances import (
    FAR_FROM_ORIGIN,
    KERNEL_VALUE,
    WEIGHTED_FAR_FROM_ORIGIN,
    assert_as_good_as_torch,
    assert_same_by_another_route,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import mmd2, nn
from wgan_kernels.kernels import RBF, Kernel, Linear, Polynomial

DOUBLE = torch.float64
KERNEL = RBF(1.3)
SIZES = [(2, 2), (9, 9), (12, 7), (7, 16), (31, 30)]
ESTIMATORS = ("unbiased", "biased", "linear", "block")


def k(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-(x[:, None] - y[None]).square().sum(-1) / (2 * 1.3**2))


def points(N: int, M: int, dtype: torch.dtype = DOUBLE, D: int = 3) -> tuple[Tensor, Tensor]:
    return samples((N, D), dtype, seed=N), samples((M, D), dtype, seed=100 + M) + 0.5


def plain(x: Tensor, y: Tensor, estimator: str, size: int | None = None) -> Tensor:
    """Loops over what the estimators are means of."""
    smaller = min(len(x), len(y))
    if estimator == "linear":
        pairs = [(x[i], x[i + 1], y[i], y[i + 1]) for i in range(0, smaller - 1, 2)]
        one = lambda a, b: k(a[None], b[None])[0, 0]  # noqa: E731
        return torch.stack([one(a, b) + one(c, d) - one(a, d) - one(b, c) for a, b, c, d in pairs]).mean()
    if estimator == "block":
        blocks = smaller // (size or max(2, round(smaller**0.5)))
        n, m = len(x) // blocks, len(y) // blocks
        each = [(x[i * n : (i + 1) * n], y[i * m : (i + 1) * m]) for i in range(blocks)]
        return torch.stack([plain(*block, "unbiased") for block in each]).mean()
    ones = (torch.ones(len(z), dtype=x.dtype) for z in (x, y))
    return weighted(x, y, *ones, estimator)


def weighted(x: Tensor, y: Tensor, a: Tensor, b: Tensor, estimator: str) -> Tensor:
    def mean(x: Tensor, y: Tensor, a: Tensor, b: Tensor, within: bool) -> Tensor:
        counts = a[:, None] * b
        if within and estimator == "unbiased":
            counts = counts * (1 - torch.eye(len(x), dtype=x.dtype))
        return (counts * k(x, y)).sum() / counts.sum()

    return mean(x, x, a, a, True) + mean(y, y, b, b, True) - 2 * mean(x, y, a, b, False)


@pytest.mark.parametrize(("N", "M"), SIZES)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_estimators(backend: str, estimator: str, N: int, M: int) -> None:
    x, y = points(N, M)
    assert_same_by_another_route(mmd2(x, y, KERNEL, estimator=estimator), plain(x, y, estimator))


@pytest.mark.parametrize("size", [2, 3, 7])
def test_sizes_of_blocks(backend: str, size: int) -> None:
    x, y = points(17, 23)
    value = mmd2(x, y, KERNEL, estimator="block", block_size=size)
    assert_same_by_another_route(value, plain(x, y, "block", size))
    assert_same_by_another_route(nn.MMDLoss(KERNEL, estimator="block", block_size=size)(x, y), value)


def test_one_block_is_the_unbiased_estimator(backend: str) -> None:
    x, y = points(9, 14)
    assert_same_by_another_route(mmd2(x, y, KERNEL, estimator="block", block_size=9), mmd2(x, y, KERNEL))


@pytest.mark.parity
@pytest.mark.parametrize("estimator", ["linear", "block"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(backend: str, dtype: torch.dtype, estimator: str) -> None:
    x, y = points(40, 50, dtype)
    wide = torch.promote_types(dtype, torch.float32)
    ours, by_torch, exact = leaf(x), leaf(x.to(wide)), leaf(x.double())
    value = mmd2(ours, y, KERNEL, estimator=estimator)
    others = plain(by_torch, y.to(wide), estimator), plain(exact, y.double(), estimator)
    for each in (value, *others):
        each.backward()
    assert value.dtype == wide and ours.grad.dtype == dtype
    terms = 4 * KERNEL_VALUE[wide]
    assert_as_good_as_torch(value.detach(), *[each.detach() for each in others], "value", terms)
    assert_as_good_as_torch(ours.grad, by_torch.grad.to(dtype), exact.grad, "gradient", terms / 40)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_a_batch_of_problems(backend: str, estimator: str) -> None:
    x, y = samples((3, 11, 2), DOUBLE, seed=1), samples((3, 8, 2), DOUBLE, seed=2) + 1
    values = mmd2(x, y, KERNEL, estimator=estimator)
    each = torch.stack([mmd2(a, b, KERNEL, estimator=estimator) for a, b in zip(x, y)])
    assert_same_by_another_route(values, each)
    assert mmd2(x[:0], y[:0], KERNEL, estimator=estimator).shape == (0,)


@pytest.mark.parametrize("estimator", ["unbiased", "biased"])
@pytest.mark.parametrize(("N", "M"), SIZES)
def test_weights(backend: str, estimator: str, N: int, M: int) -> None:
    x, y = points(N, M)
    a, b = samples((N,), DOUBLE, seed=3).abs() + 0.1, samples((M,), DOUBLE, seed=4).abs() + 0.1
    ones = [torch.ones_like(each) for each in (a, b)]
    for given, full in (((a, b), (a, b)), ((a, None), (a, ones[1])), ((None, b), (ones[0], b))):
        value = mmd2(x, y, KERNEL, estimator=estimator, x_weights=given[0], y_weights=given[1])
        assert_same_by_another_route(value, weighted(x, y, *full, estimator))
    alike = mmd2(x, y, KERNEL, estimator=estimator, x_weights=3 * ones[0], y_weights=ones[1])
    assert_same_by_another_route(alike, mmd2(x, y, KERNEL, estimator=estimator))


def test_weights_in_a_batch_leave_points_out(backend: str) -> None:
    x, y = samples((2, 9, 2), torch.float32, seed=1), samples((2, 6, 2), torch.float32, seed=2)
    there = torch.tensor([[1] * 9, [1] * 5 + [0] * 4], dtype=torch.bfloat16)
    values = nn.MMDLoss(KERNEL)(x, y, x_weights=there)
    expected = torch.stack([mmd2(x[0], y[0], KERNEL), mmd2(x[1, :5], y[1], KERNEL)])
    assert_same_by_another_route(values, expected)


@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradcheck_and_gradgradcheck(backend: str, estimator: str) -> None:
    x, y = (leaf(each) for each in points(5, 4, D=2))
    inputs = (x, y)
    if estimator in ("unbiased", "biased"):
        inputs += (leaf(torch.linspace(0.5, 2, 5, dtype=DOUBLE)), leaf(torch.linspace(2, 1, 4, dtype=DOUBLE)))

    def function(x: Tensor, y: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
        return mmd2(x, y, KERNEL, estimator=estimator, x_weights=a, y_weights=b)

    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_far_from_the_origin(backend: str) -> None:
    """Mean 100, spread 0.01: the values of the same points about the origin, but for how float64 holds 100.01."""
    x, y = (0.01 * each for each in points(20, 20))
    kernel = RBF(0.01)
    ones = torch.ones(20)
    for settings in ({"estimator": "linear"}, {"estimator": "block"}, {"x_weights": ones}):
        near, far = mmd2(x, y, kernel, **settings), mmd2(x + 100, y + 100, kernel, **settings)
        assert far.item() == pytest.approx(near.item(), abs=FAR_FROM_ORIGIN[DOUBLE])


@pytest.mark.parametrize("estimator", ["linear", "block"])
def test_they_are_unbiased(estimator: str) -> None:
    """2,000 problems of equal distributions at once."""
    x, y = samples((2000, 12, 1), DOUBLE, seed=1), samples((2000, 9, 1), DOUBLE, seed=2)
    values = mmd2(x, y, KERNEL, estimator=estimator)
    assert values.mean().abs() < 4 * values.std() / 2000**0.5 and values.min() < 0


def test_compiled_equals_eager(backend: str) -> None:
    x, y = points(6, 7, torch.float32)
    settings = ({"estimator": "block"}, {"estimator": "linear"}, {"x_weights": torch.ones(6)})

    def function(x: Tensor, y: Tensor) -> Tensor:
        batch = mmd2(x[None], y[None], KERNEL)
        return torch.cat([torch.stack([mmd2(x, y, KERNEL, **each) for each in settings]), batch])

    assert_same_by_another_route(compile_once(function, backend)(x, y), function(x, y))


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"estimator": "quadratic"}, ValueError, ["estimator must be one of", "'linear', 'block'", "'quadratic'"]),
        ({"block_size": 2}, ValueError, ["block_size must be None with estimator='unbiased'"]),
        ({"block_size": 1, "estimator": "block"}, ValueError, ["block_size must be at least 2", "1"]),
        ({"block_size": 2.0, "estimator": "block"}, TypeError, ["block_size must be a whole number", "float"]),
        ({"block_size": 6, "estimator": "block"}, ValueError, ["block_size must be at most the number of points, 5"]),
        ({"estimator": "linear", "x_weights": torch.ones(5)}, ValueError, ["x_weights must be None", "'linear'"]),
        ({"estimator": "block", "y_weights": torch.ones(6)}, ValueError, ["y_weights must be None", "'block'"]),
        ({"x_weights": torch.ones(6)}, ValueError, ["x_weights must hold a number for each", r"\(5,\)", r"\(6,\)"]),
        ({"y_weights": torch.ones(6, 1)}, ValueError, ["y_weights must hold", "of y", r"\(6, 1\)"]),
        ({"y_weights": torch.ones(6, dtype=torch.int64)}, TypeError, ["y_weights", "int64"]),
        ({"x_weights": torch.ones(5, device="meta")}, ValueError, ["x_weights must be on the device of x", "meta"]),
        ({"x_weights": [1.0] * 5}, TypeError, ["x_weights must be a torch.Tensor, got list"]),
        ({"x": torch.ones(2, 5, 3)}, ValueError, ["y must hold as many problems as x", r"\(2,\)", r"\(\)"]),
        ({"x": torch.ones(1, 2, 5, 3)}, ValueError, ["x must be points", r"\(problems, number, features\)", "flatten"]),
        ({"x": torch.ones(1, 3), "estimator": "linear"}, ValueError, ["x must hold at least 2 points, got 1"]),
        ({"kernel": None, "estimator": "linear"}, TypeError, ["kernel must be one of", "NoneType"]),
    ],
)
def test_what_it_refuses(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    arguments = {"x": torch.ones(5, 3), "y": torch.ones(6, 3), "kernel": KERNEL, **settings}
    assert_same_error(lambda: mmd2(**arguments), error, *words)


@pytest.mark.parametrize("kernel", [Linear(), Polynomial(2), RBF(0.02)])
def test_weights_of_float32_points_far_from_the_origin(backend: str, kernel: Kernel) -> None:
    """Sums that are much larger than what their difference leaves."""
    x, y = (100 + 0.01 * samples((n, 4), torch.float64, seed=n) for n in (40, 30))
    x, y = x.float(), (y + 0.01).float()
    weights = torch.ones(40)
    exact = mmd2(x.double(), y.double(), kernel, estimator="biased").item()
    assert mmd2(x, y, kernel, estimator="biased", x_weights=weights).item() == pytest.approx(
        exact, rel=WEIGHTED_FAR_FROM_ORIGIN
    )
