"""What a generator would learn from critics that are trained afresh against it, while it stands still.

Source: Arjovsky, Bottou 2017, "Towards Principled Methods for Training Generative Adversarial Networks", figures 2, 3.
"""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..config import Config
from ..data import Data, load
from ..loop import Training
from ..objectives.base import Adversarial
from .critics import make_critic, objective, rows, train_critic
from .experiment import Experiment, Found

# The generator's loss, by the objective that trains its critic.
LOSSES = {"minimax": ("gan", "gan"), "non-saturating": ("gan", "nsgan"), "wgan-gp": ("wgan-gp", "wgan-gp")}


@dataclass(frozen=True)
class Settings:
    data: Literal["digits", "8gaussians", "25gaussians", "swissroll"] = "digits"
    stages: tuple[int, ...] = (50, 500, 3000)
    critic_steps: int = 4000
    every: int = 50
    batch_size: int = 64
    samples: int = 512
    width: int = 128
    lr: float = 2e-4
    seed: int = 0


def frozen_generators(settings: Settings, data: Data) -> dict[int, nn.Module]:
    """After each number of steps of a run of nsgan."""
    training = Training(Config(objective="nsgan", width=settings.width, seed=settings.seed), data)
    found = {}
    for stage in settings.stages:
        while training.step_count < stage:
            training.step()
        found[stage] = deepcopy(training.generator)
    return found


def gradient_norm(how: Adversarial, critic: nn.Module, generator: nn.Module, latent: Tensor) -> float:
    """Of the generator's loss by all its weights."""
    loss = how.generator_terms(critic, generator(latent), None)["loss"]
    grads = torch.autograd.grad(loss, list(generator.parameters()))
    return torch.cat([grad.flatten() for grad in grads]).norm().item()


def norms_along(settings: Settings, data: Data, generator: nn.Module, critic_name: str) -> dict[str, list[float]]:
    """Gradient norms of the generator's losses, every few steps of a fresh critic."""
    width = objective("nsgan").latent
    latent = torch.randn(settings.samples, width, generator=torch.Generator().manual_seed(settings.seed))
    found: dict[str, list[float]] = {name: [] for name, (of, _) in LOSSES.items() if of == critic_name}
    critic = make_critic(data.train.size(1), settings.width, 2, settings.seed + 1)

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        noise = torch.randn(settings.batch_size, width, generator=random)
        with torch.no_grad():
            return rows(data.train, settings.batch_size, random), generator(noise)

    def watch(step: int) -> None:
        if step % settings.every == 0:
            for name, norms in found.items():
                norms.append(gradient_norm(objective(LOSSES[name][1]), critic, generator, latent))

    train_critic(objective(critic_name, lr=settings.lr), critic, draw, settings.critic_steps, settings.seed, watch)
    return found


def run(settings: Settings) -> Found:
    data = load(settings.data)
    numbers: dict[str, Any] = {"critic steps": list(range(0, settings.critic_steps + 1, settings.every))}
    for stage, generator in frozen_generators(settings, data).items():
        norms = norms_along(settings, data, generator, "gan") | norms_along(settings, data, generator, "wgan-gp")
        last = {name: curve[-1] for name, curve in norms.items()}
        falls = {name: max(curve) / curve[-1] for name, curve in norms.items()}
        numbers[f"generator of {stage} steps"] = {"norms": norms, "last": last, "largest / last": falls}
    return Found(numbers, partial(draw, settings, numbers), (12, 3.8))


def draw(settings: Settings, numbers: dict[str, Any], figure: Figure) -> None:
    panels = figure.subplots(1, len(settings.stages), sharey=True, squeeze=False)[0]
    for axes, stage in zip(panels, settings.stages, strict=True):
        for name, curve in numbers[f"generator of {stage} steps"]["norms"].items():
            axes.plot(numbers["critic steps"], curve, label=name)
        axes.set(title=f"generator frozen after {stage} steps", xlabel="steps of the fresh critic", yscale="log")
        axes.grid(alpha=0.3)
    panels[0].set_ylabel("norm of the generator's gradient")
    panels[0].legend(frameon=False, title="generator's loss")


EXPERIMENT = Experiment("vanishing-gradient", "Does a better discriminator teach the generator less?", Settings, run)
