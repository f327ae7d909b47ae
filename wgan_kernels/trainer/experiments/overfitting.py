"""A critic that learns a small set by heart: what it says of the digits it is trained on, and of others.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", figure 5 (b).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure

from ..config import Config
from ..data import Data, Judge, load
from ..loop import Training
from .experiment import Experiment, Found
from .runs import curves

OBJECTIVES = ("wgan-gp", "wgan")


@dataclass(frozen=True)
class Settings:
    digits: int = 1000
    steps: int = 5000
    every: int = 50
    width: int = 256
    penalised_lr: float = 5e-4
    clipped_lr: float = 2e-4
    seed: int = 0


def few_digits(settings: Settings) -> Data:
    """That many to train on; all others are held out."""
    data = load("digits")
    order = torch.randperm(len(data.train), generator=torch.Generator().manual_seed(settings.seed))
    kept, others = data.train[order].split([settings.digits, len(order) - settings.digits])
    return data._replace(train=kept, held_out=torch.cat([others, data.held_out]))


def followed(settings: Settings, name: str, data: Data) -> dict[str, Any]:
    """What the critic maximises, of training and of held-out digits, as many of each, against the same samples."""
    lr = settings.penalised_lr if name == "wgan-gp" else settings.clipped_lr
    training = Training(Config(objective=name, width=settings.width, lr=lr, seed=settings.seed), data)
    judge = Judge(data)
    number = min(len(data.train), len(data.held_out))
    mix = torch.rand(number, generator=torch.Generator().manual_seed(settings.seed))

    def look() -> dict[str, float]:
        fake = training.evaluation_samples()
        values = {"mmd2": judge.mmd2(fake)}
        for part, real in (("train", data.train), ("held out", data.held_out)):
            terms = training.objective.critic_terms(training.networks.critic, real[:number], fake[:number], mix)
            values[part] = -terms["loss"].item()
        return values

    found = curves(training, settings.steps, settings.every, look)
    return {key: found[key] for key in ("step", "train", "held out", "mmd2")}


def run(settings: Settings) -> Found:
    data = few_digits(settings)
    numbers: dict[str, Any] = {"digits": {"train": len(data.train), "held out": len(data.held_out)}}
    for name in OBJECTIVES:
        numbers[name] = followed(settings, name, data)
        numbers[name]["held out / train, by tenths of the run"] = ratios(numbers[name])
    return Found(numbers, partial(draw, numbers), (12, 3.8))


def ratios(found: dict[str, list[float]]) -> list[float]:
    """1 for a critic that knows nothing of its digits in particular; of means over a tenth of the looks each."""
    held_out, train = (torch.tensor(found[name]).tensor_split(10) for name in ("held out", "train"))
    return [(ours.mean() / theirs.mean()).item() for ours, theirs in zip(held_out, train, strict=True)]


def draw(numbers: dict[str, Any], figure: Figure) -> None:
    *panels, right = figure.subplots(1, len(OBJECTIVES) + 1)
    for axes, name in zip(panels, OBJECTIVES, strict=True):
        found = numbers[name]
        for part in ("train", "held out"):
            axes.plot(found["step"], found[part], label=f"{part}, {numbers['digits'][part]} digits")
        axes.set(title=f"{name}: minus the critic's loss", xlabel="generator steps", ylim=(0, None))
        right.plot(found["step"], found["mmd2"], label=name)
        axes.legend(frameon=False)
    right.set(title="MMD² of samples to held-out digits", xlabel="generator steps", yscale="log")
    right.legend(frameon=False)
    for axes in (*panels, right):
        axes.grid(alpha=0.3)


EXPERIMENT = Experiment("overfitting", "Does a critic learn a small set of digits by heart?", Settings, run)
