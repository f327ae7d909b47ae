"""Where kernels meet the operators over pairs of points: everything that is summed over pairs goes through here."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .kernels import Kernel
from .ops.kernel_matvec import kernel_matvec
from .ops.kernel_sums import _row_ranges, kernel_sums, weighted_kernel_sum


def weighted_sum(
    x: Tensor, y: Tensor, kernel: Kernel, weights: tuple[float, float, float], *, diagonal: bool = False
) -> Tensor:
    """weights . block_sums, () or (B,), float64 for float64 points, else float32."""
    return weighted_kernel_sum(x, y, kernel.kinds, kernel.params, weights, diagonal=diagonal)


def block_sums(x: Tensor, y: Tensor, kernel: Kernel, *, diagonal: bool = False) -> Tensor:
    """sum_{i!=j} k(x_i, x_j), sum_{i!=j} k(y_i, y_j), sum_{i,j} k(x_i, y_j); diagonal adds i = j.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D) -> (3,) or (B, 3) float64.
    """
    _, sums = kernel_sums(x, y, kernel.kinds, kernel.params, (1.0, 1.0, 1.0), diagonal=diagonal)
    return sums.sum(-1)


def matvec(x: Tensor, y: Tensor, v: Tensor, kernel: Kernel, *, diagonal: bool = True) -> Tensor:
    """out_ip = sum_j k(x_i, y_j) v_jp, without i = j unless diagonal.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D); v: (M, P) or (B, M, P) -> (N, P) or (B, N, P).
    """
    return kernel_matvec(x, y, v, kernel.kinds, kernel.params, diagonal=diagonal)


def share_of_sum(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    weights: tuple[float, float, float],
    share: int,
    shares: int,
    *,
    diagonal: bool,
    spread: Callable[[Tensor], Tensor],
) -> tuple[Tensor, Tensor]:
    """What one of several equal shares of the pairs adds to weighted_sum: as it is, and in float64.

    spread: what learned parameters of the kernel go through first.
    """
    rows = x.size(-2) + y.size(-2)
    ranges = list(_row_ranges(rows, 0, rows, shares))
    begin, end = ranges[share] if share < len(ranges) else (rows, rows)
    params = spread(kernel.params) if isinstance(kernel.params, Tensor) else kernel.params
    value, sums = kernel_sums(x, y, kernel.kinds, params, weights, diagonal=diagonal, begin=begin, end=end)
    block_weights = torch.tensor(weights, dtype=sums.dtype, device=sums.device)[:, None]
    return value, (block_weights * sums.detach()).sum()
