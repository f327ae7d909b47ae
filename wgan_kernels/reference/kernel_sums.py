"""Kernel sums, the parts of a maximum mean discrepancy (Gretton et al. 2012, lemma 6 and equation 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# k(s, theta, shape) with s = r^2, the squared distance of two points. theta is the parameter that k is differentiated
# by; shape is a fixed number.
KERNEL_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "rbf": lambda s, bandwidth, _: torch.exp(-s / (2 * bandwidth**2)),
    "inverse_multiquadric": lambda s, scale, _: scale / (scale + s),
    "rational_quadratic": lambda s, length, alpha: (1 + s / (2 * alpha * length**2)) ** -alpha,
    "laplacian": lambda s, bandwidth, _: torch.exp(-_distance(s) / bandwidth),
    "matern32": lambda s, length, _: _matern32(s, 3**0.5 / length),
    "matern52": lambda s, length, _: _matern52(s, 5**0.5 / length),
    "energy": lambda s, *_: -_distance(s),
}
# The same of s = x.y.
PRODUCT_FUNCTIONS: dict[str, Callable[[Tensor, Tensor, float], Tensor]] = {
    "polynomial": lambda s, offset, degree: (s + offset) ** int(degree),
}

# kCoincident in csrc/core/kernel_pairs.h.
_COINCIDENT = 2.0**-46


def _distance(s: Tensor) -> Tensor:
    """r, which has a cusp at 0 and takes 0 for its derivatives there."""
    together = s == 0
    return torch.where(together, 0.0, torch.where(together, 1.0, s).sqrt())


def _matern32(s: Tensor, c: Tensor) -> Tensor:
    r = c * _distance(s)
    # Where points coincide, its beginning in powers of s: derivatives through r would lose it.
    return torch.where(s == 0, 1 - c**2 * s / 2, (1 + r) * torch.exp(-r))


def _matern52(s: Tensor, c: Tensor) -> Tensor:
    r = c * _distance(s)
    return torch.where(s == 0, 1 - c**2 * s / 6 + c**4 * s**2 / 24, (1 + r + r**2 / 3) * torch.exp(-r))


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||^2, (..., N, D), (..., M, D) -> (..., N, M), and 0 where rounding cannot tell the points apart."""
    squares = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]
    s = squares - 2 * x @ y.mT
    return s - torch.where(s <= _COINCIDENT * squares, s, 0.0).detach()


def kernel_matrices(
    x: Tensor, y: Tensor, kinds: Sequence[str], shapes: Sequence[float], params: Tensor
) -> list[Tensor]:
    """k_c(x_i, y_j) of each component, (..., N, M) float64; params is (C, Q)."""
    x, y = x.double(), y.double()
    if any(kind in KERNEL_FUNCTIONS for kind in kinds):
        distances = squared_distances(*centred(x, y))
    if any(kind in PRODUCT_FUNCTIONS for kind in kinds):
        products = x @ y.mT
    return [
        KERNEL_FUNCTIONS[kind](distances, theta[0], shape)
        if kind in KERNEL_FUNCTIONS
        else PRODUCT_FUNCTIONS[kind](products, theta[0], shape)
        for kind, shape, theta in zip(kinds, shapes, params)
    ]


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both shifted alike: distances stay, and far from the origin they no longer drown in the mean."""
    origin = torch.cat([x, y], -2).mean(-2, keepdim=True).detach()
    return x - origin, y - origin


def kernel_sums(
    x: Tensor,
    y: Tensor,
    weights: Tensor,
    params: Tensor,
    kinds: Sequence[str],
    shapes: Sequence[float],
    begin: int,
    end: int,
    diagonal: bool,
) -> tuple[Tensor, Tensor]:
    """sum(weights * sums), and the sums, (..., 3, C) float64, over the pairs that rows [begin, end) of [x; y] own:

    sum_{i!=j} k_c(x_i, x_j), sum_{i!=j} k_c(y_i, y_j), sum_{i,j} k_c(x_i, y_j); diagonal adds i = j.
    Row i owns the pairs (i, j) with j > i, so that the sums over ranges add up to the whole; end -1 means all rows.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    n, points = x.shape[-2], torch.cat([x.double(), y.double()], -2)
    columns = torch.arange(points.shape[-2], device=x.device)
    rows = columns[begin : len(columns) if end < 0 else end]
    in_x, in_y = (rows < n)[:, None] & (columns < n), (rows >= n)[:, None] & (columns >= n)
    above, on = rows[:, None] < columns, (rows[:, None] == columns) & diagonal
    # A pair within a set counts twice, as (i, j) and as (j, i).
    counts = (in_x * (2 * above + 1 * on), in_y * (2 * above + 1 * on), 1 * (above & ~in_x & ~in_y))
    matrices = kernel_matrices(points[..., rows, :], points, kinds, shapes, params)
    blocks = [torch.stack([(matrix * count).sum((-2, -1)) for matrix in matrices], -1) for count in counts]
    sums = torch.stack(blocks, -2)
    return (weights * sums).sum((-2, -1)).to(wide), sums
