"""A trained discriminator of N(0, 1) and N(mu, 1) beside the best one, D* = p / (p + q), whose value is 2 JS - 2 log 2.

Source: Goodfellow et al. 2014, "Generative Adversarial Nets", proposition 1 and theorem 1.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.integrate import quad
from scipy.special import expit, log_expit, rel_entr
from scipy.stats import norm
from torch import Tensor

from .critics import make_critic, objective, train_critic
from .experiment import Experiment, Found


@dataclass(frozen=True)
class Settings:
    means: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 3.0, 4.0)
    steps: int = 1000
    batch_size: int = 256
    width: int = 32
    lr: float = 1e-3
    held_out: int = 100_000
    seed: int = 0


def logit(x: Any, mu: float) -> Any:
    """That of D*: log p(x) - log q(x)."""
    return mu**2 / 2 - mu * x


def exact(mu: float) -> dict[str, float]:
    """By quadrature: 2 JS - 2 log 2 from its definition, and the value of D*."""

    def shannon(x: float) -> float:
        p, q = norm.pdf(x), norm.pdf(x, mu)
        return (rel_entr(p, (p + q) / 2) + rel_entr(q, (p + q) / 2)) / 2

    def value(x: float) -> float:
        """p log D* + q log (1 - D*)"""
        return norm.pdf(x) * log_expit(logit(x, mu)) + norm.pdf(x, mu) * log_expit(-logit(x, mu))

    integral = partial(quad, a=-12, b=12 + mu, points=[0, mu], epsabs=1e-12)
    return {"2 JS - 2 log 2": 2 * integral(shannon)[0] - 2 * math.log(2), "value of D*": integral(value)[0]}


def trained(mu: float, settings: Settings) -> tuple[dict[str, float], np.ndarray]:
    """Value and mean |D - D*| of a trained discriminator on new samples, and D on a grid."""
    how = objective("gan", lr=settings.lr)

    def draw(random: torch.Generator, number: int = settings.batch_size) -> tuple[Tensor, Tensor]:
        real, fake = torch.randn(2, number, 1, generator=random)
        return real, fake + mu

    critic = make_critic(1, settings.width, 2, settings.seed)
    train_critic(how, critic, draw, settings.steps, settings.seed)
    real, fake = draw(torch.Generator().manual_seed(settings.seed + 1), settings.held_out)
    with torch.no_grad():
        value = -2 * how.critic_terms(critic, real, fake, None)["loss"].item()
        both = torch.cat([real, fake])
        error = (critic(both).sigmoid() - logit(both, mu).sigmoid()).abs().mean().item()
        on_grid = critic(torch.from_numpy(grid(mu)).float().unsqueeze(1)).sigmoid().squeeze(1).numpy()
    return {"value": value, "mean |D - D*|": error}, on_grid


def grid(mu: float) -> np.ndarray:
    return np.linspace(-3, 3 + mu, 200)


def run(settings: Settings) -> Found:
    of_all = [exact(mu) for mu in settings.means]
    numbers: dict[str, Any] = {name: [each[name] for each in of_all] for name in of_all[0]}
    found, curves = zip(*[trained(mu, settings) for mu in settings.means], strict=True)
    numbers["trained"] = {name: [each[name] for each in found] for name in found[0]}
    return Found({"means": settings.means, **numbers}, partial(draw, settings, numbers, curves), (10, 3.8))


def draw(settings: Settings, numbers: dict[str, Any], curves: tuple[np.ndarray, ...], figure: Figure) -> None:
    left, right = figure.subplots(1, 2)
    for number, (mu, curve) in enumerate(zip(settings.means, curves, strict=True)):
        left.plot(grid(mu), expit(logit(grid(mu), mu)), "k:", label=None if number else "D*")
        left.plot(grid(mu), curve, color=f"C{number}", label=f"trained, mu = {mu:g}")
    left.set(title="discriminators of N(0, 1) and N(mu, 1)", xlabel="x", ylabel="D(x)", ylim=(-0.03, 1.03))
    means = np.linspace(0, max(settings.means), 60)
    right.plot(means, [exact(mu)["2 JS - 2 log 2"] for mu in means], "k:", label="2 JS - 2 log 2, by quadrature")
    right.plot(settings.means, numbers["trained"]["value"], "o", label="value of the trained discriminator")
    right.axhline(-2 * math.log(2), color="grey", linewidth=0.8, label="-2 log 2")
    right.set(title="value of the game", xlabel="mu", ylim=(-1.45, 0.1))
    for axes in (left, right):
        axes.legend(frameon=False, fontsize=8)


EXPERIMENT = Experiment(
    "optimal-discriminator", "Is the discriminator's best value 2 JS - 2 log 2, at D* = p / (p + q)?", Settings, run
)
