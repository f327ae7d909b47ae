"""Kernel sums, the parts of a maximum mean discrepancy (Gretton et al. 2012, lemma 6 and equation 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

KERNEL_FUNCTIONS = {
    "rbf": lambda squared_distance, bandwidth: torch.exp(-squared_distance / (2 * bandwidth**2)),
    "inverse_multiquadric": lambda squared_distance, scale: scale / (scale + squared_distance),
}


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """||x_i - y_j||^2, (N, D), (M, D) -> (N, M)."""
    return x.square().sum(1)[:, None] + y.square().sum(1)[None, :] - 2 * x @ y.T


def kernel_matrix(x: Tensor, y: Tensor, kind: str, params: Sequence[float]) -> Tensor:
    """Sum over params of k(x_i, y_j), (N, M)."""
    distances = squared_distances(x, y)
    return sum(KERNEL_FUNCTIONS[kind](distances, param) for param in params)


def kernel_sums(x: Tensor, y: Tensor, kind: str, params: Sequence[float], diagonal: bool) -> Tensor:
    """(sum_{i!=j} k(x_i, x_j), sum_{i!=j} k(y_i, y_j), sum_{i,j} k(x_i, y_j)) in float64; diagonal adds i = j."""
    x, y = x.double(), y.double()
    # Distances do not change under a shift, and far from the origin they drown in the squares of the mean.
    origin = (torch.cat([x, y]).mean(0)).detach()
    x, y = x - origin, y - origin

    def within(points: Tensor) -> Tensor:
        matrix = kernel_matrix(points, points, kind, params)
        return matrix.sum() if diagonal else matrix.sum() - matrix.diagonal().sum()

    return torch.stack([within(x), within(y), kernel_matrix(x, y, kind, params).sum()])
