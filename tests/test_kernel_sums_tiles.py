"""kernel_sums of so many points that a tile holds more of them: some rows of the gradients, against the formula."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from cases import assert_same_bits
from tolerances import assert_as_good_as_torch
from torch import Tensor

from wgan_kernels.ops.kernel_sums import kernel_sums

# Tiles hold 192 points of 137 features or more from 3,840 points on, and 288 of 64 or more from 5,760 on.
SIZES = [(2_100, 1_790, 140), (3_107, 2_803, 67)]
WEIGHTS = (0.75, 1.25, -2.0)  # of the blocks xx, yy, xy


def kernel(kinds: tuple[str, ...], dim: int) -> Callable[[Tensor, Tensor], Tensor]:
    """k(x_i, y_j) as people write it, in the dtype of the points."""

    def matrix(x: Tensor, y: Tensor) -> Tensor:
        products = x @ y.mT
        squares = x.square().sum(1)[:, None] + y.square().sum(1) - 2 * products
        of = {
            "rbf": lambda: torch.exp(-squares / (2 * dim)),
            "laplacian": lambda: torch.exp(-squares.clamp_min(1e-12).sqrt() / (2 * dim**0.5)),
            "polynomial": lambda: (products / dim + 1) ** 2,
        }
        return torch.stack([of[kind]() for kind in kinds]).sum(0)

    return matrix


def gradient_rows(k: Callable[[Tensor, Tensor], Tensor], rows: Tensor, in_y: bool) -> Callable[..., Tensor]:
    """(own, x, y) -> the gradient by the points own, which are the rows of x, or of y, of the weighted sums."""

    def total(own: Tensor, x: Tensor, y: Tensor) -> Tensor:
        same, other = (y, x) if in_y else (x, y)
        others = rows[:, None] != torch.arange(len(same))
        return 2 * WEIGHTS[in_y] * k(own, same)[others].sum() + WEIGHTS[2] * k(own, other).sum()

    return torch.func.grad(total)


def settings(kinds: tuple[str, ...], dim: int) -> tuple[tuple[float, ...], Tensor]:
    """The parameters of the kernels, and the weights of each block's, (3, C)."""
    params = tuple({"rbf": dim**0.5, "laplacian": 2 * dim**0.5, "polynomial": float(dim)}[kind] for kind in kinds)
    scales = torch.tensor([1 / dim**2 if kind == "polynomial" else 1.0 for kind in kinds], dtype=torch.float64)
    return params, torch.tensor(WEIGHTS, dtype=torch.float64)[:, None] * scales


@pytest.mark.parametrize("kinds", [("rbf",), ("rbf", "laplacian", "polynomial")])
@pytest.mark.parametrize("size", SIZES)
def test_rows_of_both_gradients_and_of_their_derivatives(size: tuple[int, int, int], kinds: tuple[str, ...]) -> None:
    n, m, dim = size
    generator = torch.Generator().manual_seed(n)
    x, y, u, v = (torch.randn(count, dim, generator=generator) for count in (n, m, n, m))
    x.requires_grad_(), y.requires_grad_()
    params, weights = settings(kinds, dim)

    value, sums = kernel_sums(x, y, kinds, params, weights, shapes=[2.0] * len(kinds))
    grads = torch.autograd.grad(value, (x, y), create_graph=True)
    along = torch.autograd.grad(sum((grad * each).sum() for grad, each in zip(grads, (u, v))), (x, y))

    with torch.no_grad():  # smaller tiles, in another order
        _, by_small_tiles = kernel_sums(x, y, kinds, params, weights, shapes=[2.0] * len(kinds))
    assert_same_bits(sums.detach(), by_small_tiles)
    for in_y, points in enumerate((x, y)):
        rows = torch.tensor([0, 95, 96, 191, 192, 287, 288, 1_000, len(points) - 2, len(points) - 1])
        formula = gradient_rows(kernel(kinds, dim), rows, bool(in_y))
        found = {}
        for dtype in (torch.float32, torch.float64):
            sets, directions = (x.detach().to(dtype), y.detach().to(dtype)), (u.to(dtype), v.to(dtype))
            found[dtype] = torch.func.jvp(formula, (sets[in_y][rows], *sets), (directions[in_y][rows], *directions))
        for what, ours, plain, exact in zip(("gradient", "tangent"), (grads[in_y], along[in_y]), *found.values()):
            assert_as_good_as_torch(ours[rows].detach(), plain, exact, f"{what} of {'xy'[in_y]}")


# Together they have points enough for the largest tiles, which no problem of its own fills.
@pytest.mark.parametrize("size", [(14, 221, 203), (60, 97, 1)])
def test_gradients_of_many_problems(size: tuple[int, int, int]) -> None:
    B, n, m = size
    dim, kinds = 64, ("rbf", "laplacian", "polynomial")
    generator = torch.Generator().manual_seed(n)
    x, y = (torch.randn(B, count, dim, generator=generator) for count in (n, m))
    x.requires_grad_(), y.requires_grad_()
    params, weights = settings(kinds, dim)
    value, _ = kernel_sums(x, y, kinds, params, weights, shapes=[2.0] * len(kinds))
    grads = torch.autograd.grad(value.sum(), (x, y))
    for b in (0, B // 2, B - 1):
        for in_y, points in enumerate((x, y)):
            rows = torch.arange(points.size(1))
            formula = gradient_rows(kernel(kinds, dim), rows, bool(in_y))
            found = []
            for dtype in (torch.float32, torch.float64):
                sets = x[b].detach().to(dtype), y[b].detach().to(dtype)
                found.append(formula(sets[in_y], *sets))
            assert_as_good_as_torch(grads[in_y][b], *found, f"gradient of {'xy'[in_y]}")
