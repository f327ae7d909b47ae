"""Kernel sums, the parts of a maximum mean discrepancy (Gretton et al. 2012, lemma 6 and equation 5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

# k(s, *params) with s = ||x - y||^2.
KERNEL_FUNCTIONS: dict[str, Callable[..., Tensor]] = {
    "rbf": lambda s, bandwidth: torch.exp(-s / (2 * bandwidth**2)),
    "inverse_multiquadric": lambda s, scale: scale / (scale + s),
}


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||^2, (..., N, D), (..., M, D) -> (..., N, M)."""
    return x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :] - 2 * x @ y.mT


def kernel_matrices(x: Tensor, y: Tensor, kinds: Sequence[str], params: Tensor) -> list[Tensor]:
    """k_c(x_i, y_j) of each component, (..., N, M); params is (C, Q)."""
    distances = squared_distances(x, y)
    return [KERNEL_FUNCTIONS[kind](distances, theta[0]) for kind, theta in zip(kinds, params)]


def centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 and shifted alike: distances stay, and far from the origin they no longer drown in the mean."""
    x, y = x.double(), y.double()
    origin = torch.cat([x, y], -2).mean(-2, keepdim=True).detach()
    return x - origin, y - origin


def kernel_sums(
    x: Tensor, y: Tensor, weights: Tensor, params: Tensor, kinds: Sequence[str], begin: int, end: int, diagonal: bool
) -> tuple[Tensor, Tensor]:
    """sum(weights * sums), and the sums, (..., 3, C) float64, over the pairs that rows [begin, end) of [x; y] own:

    sum_{i!=j} k_c(x_i, x_j), sum_{i!=j} k_c(y_i, y_j), sum_{i,j} k_c(x_i, y_j); diagonal adds i = j.
    Row i owns the pairs (i, j) with j > i, so that the sums over ranges add up to the whole; end -1 means all rows.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    n, points = x.shape[-2], torch.cat(centred(x, y), -2)
    columns = torch.arange(points.shape[-2], device=x.device)
    rows = columns[begin : len(columns) if end < 0 else end]
    in_x, in_y = (rows < n)[:, None] & (columns < n), (rows >= n)[:, None] & (columns >= n)
    above, on = rows[:, None] < columns, (rows[:, None] == columns) & diagonal
    # A pair within a set counts twice, as (i, j) and as (j, i).
    counts = (in_x * (2 * above + 1 * on), in_y * (2 * above + 1 * on), 1 * (above & ~in_x & ~in_y))
    matrices = kernel_matrices(points[..., rows, :], points, kinds, params)
    blocks = [torch.stack([(matrix * count).sum((-2, -1)) for matrix in matrices], -1) for count in counts]
    sums = torch.stack(blocks, -2)
    return (weights * sums).sum((-2, -1)).to(wide), sums
