"""Whether a loss says how good the samples are: critics' estimates beside discrepancies to held-out digits.

Source: Arjovsky et al. 2017, "Wasserstein GAN", figures 3 and 4.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from scipy.stats import spearmanr

import wgan_kernels as wk

from ..config import Config
from ..data import Judge, load
from ..loop import Training
from .experiment import Experiment, Found
from .runs import curves

# What the critic's loss estimates, by objective.
ESTIMATES = {"wgan": "wasserstein", "wgan-gp": "wasserstein", "gan": "jensen_shannon"}


@dataclass(frozen=True)
class Settings:
    data: str = "digits"
    steps: int = 6000
    every: int = 100
    permutations: int = 500
    seed: int = 0


def followed(settings: Settings, name: str) -> dict[str, Any]:
    data = load(settings.data)
    judge = Judge(data)
    training = Training(Config(objective=name, seed=settings.seed), data)
    random = torch.Generator().manual_seed(settings.seed)

    def look() -> dict[str, float]:
        samples = training.evaluation_samples()
        test = wk.mmd_test(samples[: len(data.held_out)], data.held_out, wk.kernels.RBF(judge.bandwidth),
                           permutations=settings.permutations, generator=random)  # fmt: skip
        return {"mmd2": judge.mmd2(samples), "p_value": test.p_value.item()}

    found = curves(training, settings.steps, settings.every, look)
    found["estimate"] = found.pop(ESTIMATES[name])
    kept = {key: found[key] for key in ("step", "estimate", "generator_loss", "mmd2", "p_value")}
    passed = sum(value > 0.05 for value in kept["p_value"])
    return kept | {"rank correlation": correlations(kept), "last mmd2": kept["mmd2"][-1],
                   "looks with a p-value above 0.05": passed}  # fmt: skip


def correlations(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Spearman's, of a loss and a measure of quality, over all looks and over either half."""
    half = len(found["step"]) // 2
    parts = {"all": slice(None), "first half": slice(half), "second half": slice(half, None)}
    pairs = [("estimate", "mmd2"), ("estimate", "p_value"), ("generator_loss", "mmd2")]
    return {
        f"{loss} and {quality}": {
            part: correlation(found[loss][rows], found[quality][rows]) for part, rows in parts.items()
        }
        for loss, quality in pairs
    }


def correlation(x: list[float], y: list[float]) -> float:
    """NaN where one of them never changes, of which there is no rank."""
    return math.nan if min(len(set(x)), len(set(y))) == 1 else spearmanr(x, y).statistic


def run(settings: Settings) -> Found:
    numbers = {"mmd2 of training samples": Judge(load(settings.data)).baselines["train"]}
    numbers |= {name: followed(settings, name) for name in ESTIMATES}
    return Found(numbers, partial(draw, numbers), (12, 7))


def draw(numbers: dict[str, Any], figure: Figure) -> None:
    panels = figure.subplots(3, len(ESTIMATES), sharex=True)
    for first, *others in panels[1:]:
        for axes in others:
            axes.sharey(first)
    for column, (name, estimate) in zip(panels.T, ESTIMATES.items(), strict=True):
        found = numbers[name]
        rank = found["rank correlation"]["estimate and mmd2"]["all"]
        column[0].plot(found["step"], found["estimate"])
        column[0].set(title=f"{name}: rank correlation {rank:.2f}", ylabel=f"estimate ({estimate.replace('_', '-')})")
        column[1].plot(found["step"], found["mmd2"], "C1")
        column[1].set(ylabel="MMD² to held-out digits", yscale="log")
        column[2].plot(found["step"], found["p_value"], "C2")
        column[2].axhline(0.05, color="gray", linestyle=":", label="0.05")
        column[2].set(ylabel="p-value", xlabel="generator steps", yscale="log")
    for axes in panels.flat:
        axes.grid(alpha=0.3)
    panels[2, 0].legend(frameon=False)


EXPERIMENT = Experiment("loss-and-quality", "Does the critic's loss say how good the samples are?", Settings, run)
