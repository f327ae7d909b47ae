"""The gradient penalty as people write it, for graphs of every order, to hold the package against."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


def mixed(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """(B, ...) points between real and generated samples; mix: (B,)."""
    mix = mix.reshape(-1, *[1] * (real.dim() - 1))
    return mix * real + (1 - mix) * fake


def gradient_of(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """(B, ...) the gradient of the scores' sum by x, with its graph."""
    x = x if x.requires_grad else x.detach().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return grad


def eager_penalty(
    critic: Callable[[Tensor], Tensor], x: Tensor, target: float = 1.0, one_sided: bool = False, weight: float = 10.0
) -> tuple[Tensor, Tensor]:
    """weight * mean((norm - target)^2) and the norms, (B,)."""
    norms = gradient_of(critic, x).flatten(1).norm(2, dim=1)
    excess = (norms - target).clamp(min=0) if one_sided else norms - target
    return weight * (excess**2).mean(), norms.detach()


def parameter_gradients(loss: Tensor, critic: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True))


def full_gradients(loss: Tensor, critic: nn.Module) -> list[Tensor]:
    """With zeros for those that the loss does not depend on."""
    params = critic.parameters()
    return [torch.zeros_like(p) if g is None else g for g, p in zip(parameter_gradients(loss, critic), params)]
