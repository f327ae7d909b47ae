"""Estimators of a squared maximum mean discrepancy, beside those that are one weighted sum over all pairs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks
from .kernels import Kernel
from .pair_sums import matvec, weighted_sum
from .samples import check_kernel, check_weights, numbers_of_points

ESTIMATORS = ("unbiased", "biased", "linear", "block")


def estimate(
    x: Tensor, y: Tensor, kernel: Kernel, estimator: str, block_size: Any, x_weights: Any, y_weights: Any
) -> Tensor:
    """mmd2 with weights, or by 'linear' or 'block'."""
    _checks.choice("estimator", estimator, ESTIMATORS)
    n, m = numbers_of_points(x, y, least=1 if estimator == "biased" else 2)
    check_kernel(kernel)
    if block_size is not None and estimator != "block":
        raise ValueError(f"block_size must be None with estimator={estimator!r}: only 'block' cuts samples into blocks")
    weights = {"x_weights": (x_weights, "x", x), "y_weights": (y_weights, "y", y)}
    for name, (each, *points) in weights.items():
        if each is not None and estimator in ("linear", "block"):
            raise ValueError(f"{name} must be None with estimator={estimator!r}, which takes all points alike")
        if each is not None:
            check_weights(name, each, *points)
    if estimator == "linear":
        return _linear(x, y, kernel, min(n, m) // 2)
    if estimator == "block":
        return _by_blocks(x, y, kernel, min(n, m) // _size_of_blocks(block_size, min(n, m)))
    return _weighted(x, y, kernel, x_weights, y_weights, estimator == "biased")


def _weighted(x: Tensor, y: Tensor, kernel: Kernel, a: Tensor | None, b: Tensor | None, biased: bool) -> Tensor:
    wide = torch.promote_types(x.dtype, torch.float32)
    # In float64: the value is a difference of sums that may be a million times as large.
    x, y = x.double(), y.double()
    a, b = (z.new_ones(z.shape[:-1]) if w is None else w.double() for z, w in ((x, a), (y, b)))

    def form(x: Tensor, y: Tensor, a: Tensor, b: Tensor, diagonal: bool) -> Tensor:
        return (a * matvec(x, y, b.unsqueeze(-1), kernel, diagonal=diagonal).squeeze(-1)).sum(-1)

    def within(x: Tensor, a: Tensor) -> Tensor:
        """The mean over pairs (i, j), over those with i != j unless biased."""
        total = a.sum(-1).square()
        return form(x, x, a, a, biased) / (total if biased else total - a.square().sum(-1))

    between = form(x, y, a, b, True) / (a.sum(-1) * b.sum(-1))
    return (within(x, a) + within(y, b) - 2 * between).to(wide)


def _linear(x: Tensor, y: Tensor, kernel: Kernel, pairs: int) -> Tensor:
    x_pairs, y_pairs = (z[..., : 2 * pairs, :].unflatten(-2, (pairs, 2)) for z in (x, y))
    # Rows (x_1, y_1) and columns (x_2, y_2) of each pair of points. An operator is made for more points than these.
    odd, even = (torch.stack([x_pairs[..., i, :], y_pairs[..., i, :]], -2) for i in (0, 1))
    values = kernel.matrix(odd.flatten(0, -3), even.flatten(0, -3))
    each = values[:, 0, 0] + values[:, 1, 1] - values[:, 0, 1] - values[:, 1, 0]
    return each.unflatten(0, odd.shape[:-2]).mean(-1).to(torch.promote_types(x.dtype, torch.float32))


def _size_of_blocks(block_size: Any, smaller: int) -> int:
    if block_size is None:
        return max(round(smaller**0.5), 2)
    if _checks.positive_integer("block_size", block_size) < 2:
        raise ValueError("block_size must be at least 2, got 1: the unbiased estimator needs pairs of points")
    if block_size > smaller:
        raise ValueError(f"block_size must be at most the number of points, {smaller}, got {block_size}")
    return block_size


def _by_blocks(x: Tensor, y: Tensor, kernel: Kernel, blocks: int) -> Tensor:
    n, m = x.size(-2) // blocks, y.size(-2) // blocks
    x, y = (z[..., : blocks * size, :].unflatten(-2, (blocks, size)) for z, size in ((x, n), (y, m)))
    weights = (1 / (n * (n - 1)), 1 / (m * (m - 1)), -2 / (n * m))
    values = weighted_sum(x.flatten(0, -3), y.flatten(0, -3), kernel, weights)
    return values.unflatten(0, x.shape[:-2]).mean(-1)
