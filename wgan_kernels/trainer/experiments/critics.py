"""Critics that are trained against a generator that stands still."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..networks import Sizes, mlp_critic
from ..objectives import OBJECTIVES
from ..objectives.base import Adversarial

Draw = Callable[[torch.Generator], tuple[Tensor, Tensor]]  # real and generated samples, (B, P) each


def make_critic(features: int, width: int, hidden: int, seed: int) -> nn.Sequential:
    """Fully connected, of hidden + 1 linear layers."""
    with torch.random.fork_rng(devices=[]):  # torch.nn draws initial weights from the global generator only
        torch.manual_seed(seed)
        return mlp_critic(Sizes((features,), 1, width, False), 1, hidden)


def objective(name: str, **settings: float) -> Adversarial:
    """That of the trainer, with the settings in the place of the paper's."""
    return OBJECTIVES[name][0](**settings)


def train_critic(
    objective: Adversarial,
    critic: nn.Module,
    draw: Draw,
    steps: int,
    seed: int,
    watch: Callable[[int], None] = lambda step: None,
) -> nn.Module:
    """As the objective trains it; `watch` is called with the number of steps before each and after the last."""
    optimizer = objective.optimizer("critic", critic.parameters())
    random = torch.Generator().manual_seed(seed)
    for step in range(steps):
        watch(step)
        real, fake = draw(random)
        mix = torch.rand(len(real), generator=random)
        optimizer.zero_grad()
        objective.critic_terms(critic, real, fake, mix)["loss"].backward()
        optimizer.step()
    watch(steps)
    return critic


def rows(samples: Tensor, number: int, random: torch.Generator) -> Tensor:
    return samples[torch.randint(len(samples), (number,), generator=random)]


def slopes(critic: nn.Module, points: Tensor) -> Tensor:
    """||grad f(x)||, (B,), at points (B, P)."""
    points = points.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(points).sum(), points)
    return grad.norm(dim=1)


def between(real: Tensor, fake: Tensor, seed: int) -> Tensor:
    """Points on the lines between real and generated samples."""
    mix = torch.rand(len(real), 1, generator=torch.Generator().manual_seed(seed))
    return mix * real + (1 - mix) * fake
