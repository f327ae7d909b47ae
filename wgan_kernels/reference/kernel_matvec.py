"""Kernel matrices times vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .kernel_sums import kernel_matrices


def kernel_matvec(
    x: Tensor,
    y: Tensor,
    v: Tensor,
    weights: Tensor,
    params: Tensor,
    kinds: Sequence[str],
    shapes: Sequence[float],
    begin: int,
    end: int,
    diagonal: bool,
) -> Tensor:
    """sum_j (sum_c weights_c k_c(x_i, y_j)) v_jp for rows [begin, end) of x, without i = j unless diagonal."""
    x = x[..., begin : x.shape[-2] if end < 0 else end, :]
    matrix = sum(weight * k for weight, k in zip(weights, kernel_matrices(x, y, kinds, shapes, params)))
    rows, columns = torch.arange(x.shape[-2], device=x.device) + begin, torch.arange(y.shape[-2], device=x.device)
    matrix = matrix * ((rows[:, None] != columns) | diagonal)
    return (matrix @ v.double()).to(v.dtype)
