"""Distances of the parallel segments (0, Z) and (theta, Z), Z ~ U[0, 1], and the gradients that they give theta.

Source: Arjovsky et al. 2017, "Wasserstein GAN", example 1 and figure 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..data import parallel_segments
from ..objectives.base import Adversarial
from .critics import between, make_critic, objective, rows, slopes, train_critic
from .experiment import Experiment, Found
from .transport import cheapest_plan

OBJECTIVES = {"clipped": "wgan", "penalised": "wgan-gp", "discriminator": "gan"}


@dataclass(frozen=True)
class Settings:
    thetas: tuple[float, ...] = (-1.0, -0.75, -0.5, -0.25, -0.1, 0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
    programme_samples: int = 64
    steps: int = 400
    batch_size: int = 64
    width: int = 64
    clip: float = 0.1
    lr: float = 1e-3
    seed: int = 0


def exact(theta: float) -> dict[str, float]:
    """By the formulas: the supports are disjoint unless theta = 0."""
    apart = theta != 0
    return {"w1": abs(theta), "js": math.log(2) if apart else 0.0, "kl": math.inf if apart else 0.0}


def by_programme(theta: float, number: int) -> float:
    """W1 of samples of both segments, with different Z."""
    x, y = parallel_segments(0.0).train[:number], parallel_segments(theta).train[number : 2 * number]
    cost = torch.cdist(x.double(), y.double()).numpy()
    weights = np.full(number, 1 / number)
    return float((cheapest_plan(weights, weights, cost) * cost).sum())


def by_critic(kind: str, theta: float, settings: Settings) -> dict[str, float]:
    """What the critic says of held-out samples, its steepest slope, and the gradient that theta descends."""
    own = {"clip": settings.clip} if kind == "clipped" else {}
    how = objective(OBJECTIVES[kind], lr=settings.lr, **own)
    real, fake = parallel_segments(0.0), parallel_segments(theta)

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        return rows(real.train, settings.batch_size, random), rows(fake.train, settings.batch_size, random)

    critic = make_critic(2, settings.width, 2, settings.seed)
    train_critic(how, critic, draw, settings.steps, settings.seed)
    place = torch.tensor(theta, requires_grad=True)
    generated = torch.stack([place.expand(len(fake.held_out)), fake.held_out[:, 1]], 1)
    (gradient,) = torch.autograd.grad(how.generator_terms(critic, generated, None)["loss"], place)
    value = apart(how, critic, real.held_out, fake.held_out)
    steepest = slopes(critic, between(real.held_out, fake.held_out, settings.seed)).max()
    return {"value": value.item(), "steepest slope": steepest.item(), "gradient of theta": gradient.item()}


@torch.no_grad()
def apart(how: Adversarial, critic: nn.Module, real: Tensor, fake: Tensor) -> Tensor:
    """The objective's estimate of how far two samples are apart."""
    if how.name == "gan":
        return how.critic_terms(critic, real, fake, None)["jensen_shannon"]
    return critic(real).mean() - critic(fake).mean()


def run(settings: Settings) -> Found:
    numbers: dict[str, Any] = {"thetas": list(settings.thetas)}
    of_all = [exact(theta) for theta in settings.thetas]
    numbers["exact"] = {name: [each[name] for each in of_all] for name in of_all[0]}
    numbers["linear programme"] = [by_programme(theta, settings.programme_samples) for theta in settings.thetas]
    for kind in OBJECTIVES:
        found = [by_critic(kind, theta, settings) for theta in settings.thetas]
        numbers[kind] = {name: [each[name] for each in found] for name in found[0]}
    # A K-Lipschitz critic gives K W1.
    for kind in ("clipped", "penalised"):
        of = numbers[kind]
        for name in ("value", "gradient of theta"):
            of[f"{name} / slope"] = [one / slope for one, slope in zip(of[name], of["steepest slope"], strict=True)]
    return Found(numbers, partial(draw, numbers), (12, 3.8))


def draw(numbers: dict[str, Any], figure: Figure) -> None:
    thetas, exact_numbers = numbers["thetas"], numbers["exact"]
    wasserstein, shannon, gradients = figure.subplots(1, 3)
    clipped, penalised = {"color": "C1", "marker": "s", "ms": 4, "ls": ""}, {"color": "C2", "marker": "x", "ls": ""}
    clipped["label"], penalised["label"] = "clipped critic / its slope", "penalised critic / its slope"
    wasserstein.plot(thetas, exact_numbers["w1"], "k-", label="exact, |theta|")
    wasserstein.plot(thetas, numbers["linear programme"], "o", mfc="none", label="linear programme on samples")
    wasserstein.plot(thetas, numbers["clipped"]["value / slope"], **clipped)
    wasserstein.plot(thetas, numbers["penalised"]["value / slope"], **penalised)
    wasserstein.set(title="$W_1$", xlabel="theta")
    apart = [theta for theta in thetas if theta != 0]
    low, high = min(thetas), max(thetas)
    shannon.plot([low, high], [math.log(2)] * 2, "k-", label="exact JS: log 2, and 0 at 0 (KL infinite, and 0)")
    shannon.plot(0, 0, "ko", markersize=4)
    shannon.plot(0, math.log(2), "ko", mfc="white", markersize=4)
    shannon.plot(thetas, numbers["discriminator"]["value"], "x", color="C3", label="trained discriminator")
    shannon.set(title="JS", xlabel="theta", ylim=(-0.05, 1))
    gradients.plot([low, 0, 0, high], [-1, -1, 1, 1], "k-", label="exact, of $W_1$")
    gradients.plot(thetas, numbers["clipped"]["gradient of theta / slope"], **clipped)
    gradients.plot(thetas, numbers["penalised"]["gradient of theta / slope"], **penalised)
    gradients.plot(thetas, numbers["discriminator"]["gradient of theta"], "+", color="C3", label="minimax loss")
    gradients.set(title="gradient that theta descends", xlabel="theta", ylim=(-1.3, 2.2))
    for axes in (wasserstein, shannon, gradients):
        axes.legend(frameon=False, fontsize=8, loc="upper center")
        axes.grid(alpha=0.3)
    wasserstein.set_ylim(-0.05, 1.7 * max(map(abs, apart)))


EXPERIMENT = Experiment("segments", "Which distances are continuous in theta, and give it a gradient?", Settings, run)
