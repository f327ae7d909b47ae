"""The penalty on per-sample gradient norms, (||g|| - target)^2 (Gulrajani et al. 2017, equation 3)."""

from __future__ import annotations

import torch
from torch import Tensor


def squared_norms(grad: Tensor) -> Tensor:
    """Squared L2 norm of each sample over all other dimensions, (B, ...) -> (B,) float64."""
    return grad.double().square().unsqueeze(-1).flatten(1).sum(1)


def safe_sqrt(squared: Tensor) -> Tensor:
    """Square root whose first and second derivatives at 0 are 0."""
    positive = squared > 0
    # The inner where keeps the infinite derivative of sqrt at 0 out of the branch that is not taken; that of 0 (and of
    # NaN, for which no comparison holds) gives its value and no derivative.
    return torch.where(positive, torch.where(positive, squared, 1.0).sqrt(), squared.detach())


def norm_penalty(grad: Tensor, target: float, one_sided: bool, reduction: str, weight: float) -> tuple[Tensor, Tensor]:
    """weight * reduce((norm - target)^2) in float32 or float64, and the norms (B,) in float64."""
    squared = squared_norms(grad)
    norms = safe_sqrt(squared)
    if target == 0:
        penalty = squared  # and not norms^2, whose second derivative at 0 is lost
    else:
        excess = norms - target
        penalty = (excess.relu() if one_sided else excess).square()
    if reduction == "mean":
        penalty = penalty.mean()
    elif reduction == "sum":
        penalty = penalty.sum()
    return (weight * penalty).to(torch.promote_types(grad.dtype, torch.float32)), norms.detach()
