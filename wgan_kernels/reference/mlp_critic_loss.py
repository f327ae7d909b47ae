"""What a fully connected critic of WGAN-GP minimises, and its derivatives, in sweeps of matrix products (no graph)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from .norm_penalty import norm_penalty


class MLPCriticLoss(NamedTuple):
    penalty: Tensor  # ()
    wasserstein: Tensor  # ()
    norms: Tensor  # (B,) float64
    # Derivatives of penalty - wasserstein, lists as long as there are layers, or empty
    grad_weights: list[Tensor]  # (out, in)
    grad_biases: list[Tensor]  # (out,), or (0,) for none


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


def sweep_forward(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], slopes: Sequence[float]
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """The inputs of the layers, what their activations are given, and the scores, of samples x (B, D)."""
    inputs, zs = [x], []
    for W, b, slope in zip(weights, biases, slopes, strict=True):
        zs.append(linear(inputs[-1], W, b))
        inputs.append(bend(zs[-1], slope, zs[-1]))
    return inputs[:-1], zs, inputs[-1]


def sweep_back(
    zs: Sequence[Tensor], weights: Sequence[Tensor], slopes: Sequence[float], delta: Tensor
) -> tuple[list[Tensor], Tensor]:
    """The derivatives by each z, and by the samples, from delta, that by the scores (B, K)."""
    deltas: list[Tensor] = []
    for W, slope, z in zip(reversed(weights), reversed(slopes), reversed(zs), strict=True):
        deltas.insert(0, bend(z, slope, delta))
        delta = deltas[0] @ W
    return deltas, delta


@torch.no_grad()
def mlp_critic_loss(
    mixed: Tensor,
    real: Tensor | None,
    fake: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    target: float,
    one_sided: bool,
    reduction: str,
    weight: float,
    needs_grads: bool,
) -> MLPCriticLoss:
    """penalty - wasserstein, wasserstein = mean D(real) - mean D(fake), and the derivatives."""
    _, zs, scores = sweep_forward(mixed, weights, biases, slopes)
    deltas, grad = sweep_back(zs, weights, slopes, torch.ones_like(scores))
    penalty, norms = norm_penalty(grad, target, one_sided, reduction, weight)
    grad_weights, grad_biases = [], []
    if needs_grads:
        t = penalty_gradient(grad, norms, target, one_sided, reduction, weight)
        for W, slope, z, delta in zip(weights, slopes, zs, deltas, strict=True):
            grad_weights.append(delta.t() @ t)
            t = bend(z, slope, t @ W.t())
    if real is None or fake is None:
        return MLPCriticLoss(penalty, torch.zeros_like(penalty), norms, grad_weights, grad_biases)

    inputs, zs, scores = sweep_forward(torch.cat([real, fake]), weights, biases, slopes)
    of_real, of_fake = scores[: len(real)].double(), scores[len(real) :].double()
    wasserstein = (of_real.mean() - of_fake.mean()).to(penalty.dtype)
    if needs_grads:
        seeds = torch.cat([torch.full_like(of_real, -1), torch.ones_like(of_fake)]).to(scores.dtype)
        deltas, _ = sweep_back(zs, weights, slopes, seeds / max(of_real.numel(), 1))
        grad_weights = [sofar + delta.t() @ h for sofar, delta, h in zip(grad_weights, deltas, inputs, strict=True)]
        grad_biases = [d.new_empty(0) if b is None else d.sum(0) for d, b in zip(deltas, biases, strict=True)]
    return MLPCriticLoss(penalty, wasserstein, norms, grad_weights, grad_biases)
