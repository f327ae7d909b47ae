"""The gradient penalty of a fully connected critic and its derivatives by the weights, in four sweeps (no graph)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import linear

from .norm_penalty import norm_penalty


def bend(z: Tensor, slope: float, t: Tensor) -> Tensor:
    """phi'(z) * t for the activation phi(z) = z where z > 0, slope * z elsewhere; z, t: (B, K). With t = z, phi(z)."""
    if slope == 1:
        return t
    # At NaN torch's relu passes its gradient on, and leaky_relu scales it.
    return torch.where(z <= 0, 0.0, t) if slope == 0 else torch.where(z > 0, t, slope * t)


def penalty_gradient(
    grad: Tensor, norms: Tensor, target: float, one_sided: bool, reduction: str, weight: float
) -> Tensor:
    """v, (B, D), the derivative of norm_penalty by grad, (B, D): weight * 2 * (norm - target) / norm * grad."""
    excess = (norms - target).relu() if one_sided else norms - target
    scale = torch.full_like(norms, 2.0) if target == 0 else torch.where(norms == 0, 0.0, 2 * excess / norms)
    factor = weight / max(len(norms), 1) if reduction == "mean" else weight
    return (factor * scale[:, None] * grad.double()).to(grad.dtype)


@torch.no_grad()
def mlp_penalty(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    target: float,
    one_sided: bool,
    reduction: str,
    weight: float,
    needs_grads: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    """The penalty, the norms (B,), the scores (B, K), and the derivatives by the weights."""
    h, zs = x, []
    for W, b, slope in zip(weights, biases, slopes, strict=True):
        zs.append(linear(h, W, b))
        h = bend(zs[-1], slope, zs[-1])
    scores = h

    delta, deltas = torch.ones_like(scores), []
    for W, slope, z in zip(reversed(weights), reversed(slopes), reversed(zs), strict=True):
        deltas.insert(0, bend(z, slope, delta))
        delta = deltas[0] @ W
    value, norms = norm_penalty(delta, target, one_sided, reduction, weight)

    grads = []
    if needs_grads:
        t = penalty_gradient(delta, norms, target, one_sided, reduction, weight)
        for W, slope, z, delta in zip(weights, slopes, zs, deltas, strict=True):
            grads.append(delta.t() @ t)
            t = bend(z, slope, t @ W.t())
    return value, norms, scores, grads
