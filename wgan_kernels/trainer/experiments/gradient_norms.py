"""How gradients grow or shrink through a critic of 12 layers, clipped or penalised, and what becomes of its weights.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", figure 1 (b).
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import wgan_kernels as wk

from ..data import load
from .critics import make_critic, objective, rows, slopes, train_critic
from .experiment import Experiment, Found

LAYERS = 12


@dataclass(frozen=True)
class Settings:
    clips: tuple[float, ...] = (0.1, 0.01, 0.001)
    steps: int = 600
    batch_size: int = 64
    width: int = 256
    noise: float = 1.0  # the generator is held at data + noise
    clipped_lr: float = 5e-4
    penalised_lr: float = 1e-4
    samples: int = 2000
    seed: int = 0


def norms_by_layer(critic: nn.Sequential, points: Tensor) -> list[float]:
    """Mean of ||grad of f by h_l||, h_l what goes into the l-th linear layer: h_1 is the sample."""
    h, inputs = points.detach().requires_grad_(), []
    for layer in critic:
        if isinstance(layer, nn.Linear):
            inputs.append(h)
        h = layer(h)
    return [grad.norm(dim=1).mean().item() for grad in torch.autograd.grad(h.sum(), inputs)]


def trained(settings: Settings, clip: float | None) -> nn.Sequential:
    data = load("swissroll")

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        real, centres = (rows(data.train, settings.batch_size, random) for _ in range(2))
        return real, centres + settings.noise * torch.randn(centres.shape, generator=random)

    if clip:
        how = objective("wgan", clip=clip, lr=settings.clipped_lr)
    else:
        how = objective("wgan-gp", lr=settings.penalised_lr)
    critic = make_critic(2, settings.width, LAYERS - 1, settings.seed)
    return train_critic(how, critic, draw, settings.steps, settings.seed)


def examined(settings: Settings, critic: nn.Sequential, clip: float | None) -> dict[str, Any]:
    random = torch.Generator().manual_seed(settings.seed)
    points = rows(load("swissroll").held_out, settings.samples, random).double()
    exact = deepcopy(critic).double()  # squares of the smallest are no float32 any more
    norms = norms_by_layer(exact, points)
    found = {
        "norms": norms,
        "factor a layer, towards the sample": (norms[0] / norms[-1]) ** (1 / (len(norms) - 1)),
        "steepest slope": slopes(exact, points).max(),
        "largest weight": max(weight.abs().max().item() for weight in critic.parameters()),
    }
    if clip:
        fresh = make_critic(2, settings.width, LAYERS - 1, settings.seed)
        wk.clip_weights_(fresh, clip)
        found["share of weights at the bound"] = share_at_bound(critic, clip)
        found["the same of a fresh critic, clipped"] = share_at_bound(fresh, clip)
    return found


def share_at_bound(critic: nn.Sequential, clip: float) -> float:
    """Within a hundredth of the bound: steps with small gradients move weights off it by less."""
    return float((np.abs(all_weights(critic)) >= 0.99 * clip).mean())


def run(settings: Settings) -> Found:
    critics = {f"c = {clip:g}": (trained(settings, clip), clip) for clip in settings.clips}
    critics["penalty"] = (trained(settings, None), None)
    numbers = {name: examined(settings, *each) for name, each in critics.items()}
    weights = {name: all_weights(critic) for name, (critic, _) in critics.items()}
    return Found(numbers, partial(draw, numbers, weights), (12, 5.6))


def all_weights(critic: nn.Sequential) -> np.ndarray:
    return torch.cat([layer.weight.detach().flatten() for layer in critic if isinstance(layer, nn.Linear)]).numpy()


def draw(numbers: dict[str, Any], weights: dict[str, np.ndarray], figure: Figure) -> None:
    left, right = figure.subfigures(1, 2)
    axes = left.subplots()
    for name, found in numbers.items():
        axes.plot(range(1, LAYERS + 1), found["norms"], "o-", markersize=4, label=name)
    axes.set(title="norm of the gradient of the critic's value", xlabel="by what goes into layer", yscale="log")
    axes.set_xticks(range(1, LAYERS + 1))
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    panels = right.subplots(2, -(-len(weights) // 2), squeeze=False).flatten()
    for panel, (number, (name, values)) in zip(panels, enumerate(weights.items())):
        panel.hist(values, bins=80, log=True, color=f"C{number}")
        panel.set_title(f"weights, {name}", fontsize=10)
        panel.locator_params(axis="x", nbins=3)


EXPERIMENT = Experiment(
    "gradient-norms", "Do gradients vanish or explode through a deep critic that is clipped?", Settings, run
)
