"""One Gaussian q fitted to a target p of two modes, by KL(p || q), KL(q || p) and JS.

Source: Bishop 2006, "Pattern Recognition and Machine Learning", section 10.1.2 and figure 10.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import minimize
from scipy.special import logsumexp, rel_entr
from scipy.stats import norm

from .experiment import Experiment, Found


@dataclass(frozen=True)
class Settings:
    modes: tuple[float, ...] = (-2.0, 2.5)
    weights: tuple[float, ...] = (0.6, 0.4)
    sigma: float = 0.6
    starts: tuple[float, ...] = (-3.0, 0.0, 3.0)
    points: int = 4001


class Target:
    """The mixture on a grid that reaches 20 sigma beyond its modes; densities by their logarithms."""

    def __init__(self, settings: Settings) -> None:
        reach = 20 * settings.sigma
        self.x = np.linspace(min(settings.modes) - reach, max(settings.modes) + reach, settings.points)
        parts = [math.log(w) + norm.logpdf(self.x, m, settings.sigma) for m, w in zip(settings.modes, settings.weights)]
        self.log_p = logsumexp(parts, axis=0)

    def divergences(self, log_q: np.ndarray) -> dict[str, float]:
        def kl(log_p: np.ndarray, log_q: np.ndarray) -> float:
            return float(np.trapezoid(np.exp(log_p) * (log_p - log_q), self.x))

        p, q = np.exp(self.log_p), np.exp(log_q)
        halves = [np.trapezoid(rel_entr(each, (p + q) / 2), self.x) / 2 for each in (p, q)]
        return {"forward": kl(self.log_p, log_q), "reverse": kl(log_q, self.log_p), "js": float(sum(halves))}

    def log_q(self, mean: float, sigma: float) -> np.ndarray:
        return norm.logpdf(self.x, mean, sigma)


def moments(settings: Settings) -> tuple[float, float]:
    """Mean and standard deviation of the target, which are those of the best q of KL(p || q)."""
    modes, weights = np.array(settings.modes), np.array(settings.weights)
    mean = weights @ modes
    return float(mean), math.sqrt(settings.sigma**2 + weights @ (modes - mean) ** 2)


def fits(target: Target, name: str, starts: tuple[float, ...]) -> list[dict[str, float]]:
    """The local minimum from each start, with sigma 1 there, the best first."""

    def objective(parameters: np.ndarray) -> float:
        return target.divergences(target.log_q(parameters[0], math.exp(parameters[1])))[name]

    found = [minimize(objective, [start, 0.0], method="BFGS") for start in starts]
    each = [{"start": s, "mean": f.x[0], "sigma": math.exp(f.x[1]), name: f.fun} for s, f in zip(starts, found)]
    return sorted(each, key=lambda fit: fit[name])


def run(settings: Settings) -> Found:
    target = Target(settings)
    numbers = {name: fits(target, name, settings.starts) for name in ("forward", "reverse", "js")}
    mean, sigma = moments(settings)
    return Found({"moments of the target": {"mean": mean, "sigma": sigma}, **numbers},
                 partial(draw, target, numbers), (11, 3.4))  # fmt: skip


def draw(target: Target, numbers: dict[str, Any], figure: Figure) -> None:
    titles = {"forward": "least KL(p || q): covers", "reverse": "least KL(q || p): picks", "js": "least JS"}
    for axes, (name, title) in zip(figure.subplots(1, 3, sharey=True), titles.items(), strict=True):
        axes.fill_between(target.x, np.exp(target.log_p), color="0.85", label="p")
        best, *others = distinct(numbers[name])
        for fit, style in [(best, "-"), *[(other, "--") for other in others]]:
            label = f"N({fit['mean']:.2f}, {fit['sigma']:.2f}\N{SUPERSCRIPT TWO}): {fit[name]:.3f}"
            axes.plot(target.x, np.exp(target.log_q(fit["mean"], fit["sigma"])), style, label=label)
        axes.set(title=title, xlabel="x", xlim=(-6, 6), ylim=(0, 0.95))
        axes.legend(frameon=False, fontsize=8)


def distinct(found: list[dict[str, float]]) -> list[dict[str, float]]:
    """The minima that differ, the best first."""
    kept: list[dict[str, float]] = []
    for fit in found:
        if all(abs(fit["mean"] - other["mean"]) > 0.05 for other in kept):
            kept.append(fit)
    return kept


EXPERIMENT = Experiment("kl-fits", "What does one Gaussian do with a target of two modes?", Settings, run)
