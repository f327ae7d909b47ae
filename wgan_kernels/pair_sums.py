"""Where kernels meet the operators over pairs of points: everything that is summed over pairs goes through here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import tiled
from .kernels import Kernel
from .ops._weighted_kernel_sum import weighted_kernel_sum
from .ops.kernel_matvec import kernel_matvec
from .ops.kernel_sums import _row_ranges, kernel_sums


def weighted_sum(
    x: Tensor, y: Tensor, kernel: Kernel, weights: tuple[float, float, float], *, diagonal: bool = False
) -> Tensor:
    """weights . (sum_{i!=j} k(x_i, x_j), sum_{i!=j} k(y_i, y_j), sum_{i,j} k(x_i, y_j)); diagonal adds i = j.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D) -> () or (B,), float64 for float64 points, else float32.
    """
    if kernel.is_custom:
        sums = tiled.kernel_sums(x, y, kernel.matrix, diagonal=diagonal).unbind(-1)
        value = sum(weight * each for weight, each in zip(weights, sums))
        return value.to(torch.promote_types(x.dtype, torch.float32))
    kinds, shapes, params, own = kernel.components(x.shape[-1])
    return weighted_kernel_sum(x, y, kinds, params, _of_blocks(own, weights), shapes=shapes, diagonal=diagonal)


def _of_blocks(own: tuple[float, ...] | Tensor | None, weights: tuple[float, float, float]) -> Any:
    """The weights of each block's components."""
    if own is None:
        return weights
    if isinstance(own, Tensor):
        return torch.stack([own * weight for weight in weights])
    return tuple(tuple(each * weight for each in own) for weight in weights)


def matvec(x: Tensor, y: Tensor, v: Tensor, kernel: Kernel, *, diagonal: bool = True) -> Tensor:
    """out_ip = sum_j k(x_i, y_j) v_jp, without i = j unless diagonal.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D); v: (M, P) or (B, M, P) -> (N, P) or (B, N, P).
    """
    if kernel.is_custom:
        return tiled.matvec(x, y, v, kernel.matrix, diagonal=diagonal)
    kinds, shapes, params, own = kernel.components(x.shape[-1])
    return kernel_matvec(x, y, v, kinds, params, own, shapes=shapes, diagonal=diagonal)


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

    spread: what learned numbers of the kernel go through first. Not for kernels that are functions of the user's.
    """
    rows = x.size(-2) + y.size(-2)
    ranges = list(_row_ranges(rows, 0, rows, shares))
    begin, end = ranges[share] if share < len(ranges) else (rows, rows)
    kinds, shapes, params, own = kernel.components(x.shape[-1])
    params, own = (spread(each) if isinstance(each, Tensor) else each for each in (params, own))
    own = _of_blocks((1.0,) * len(kinds) if own is None else own, weights)
    value, sums = kernel_sums(x, y, kinds, params, own, shapes=shapes, diagonal=diagonal, begin=begin, end=end)
    return value, (torch.as_tensor(own, dtype=sums.dtype, device=sums.device).detach() * sums.detach()).sum()
