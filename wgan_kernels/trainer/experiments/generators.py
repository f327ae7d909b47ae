"""Generators without batch normalisation, and fully connected ones, under nsgan and wgan: which of them lose modes?

Source: Arjovsky et al. 2017, "Wasserstein GAN", section 4.3 and figures 5 to 7.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from scipy.stats import entropy
from torch import Tensor, nn

from ..config import Config
from ..data import Data, Judge, load
from ..loop import Training
from ..networks import Sizes, dcgan_generator, mlp_critic, mlp_generator
from ..pictures import GAP, sample_grid
from .classifier import CLASSES, accuracy, labels, train_classifier
from .critics import objective
from .experiment import Experiment, Found
from .runs import curves, with_networks

SIDE = 16
SHOWN = 5  # rows and columns of samples
GREYS = colormaps["gray_r"].resampled(16)  # as many as the digits have, for a small picture
LEAST_SHARE = 0.01  # of the samples, for a class to count as found
GENERATORS: dict[str, Callable[[Sizes], nn.Module]] = {
    "DCGAN": dcgan_generator,
    "no batch norm": partial(dcgan_generator, batch_norm=False, constant=True),  # and the same number of filters
    "fully connected": lambda sizes: mlp_generator(sizes._replace(width=16 * sizes.width), hidden=4),
}
OBJECTIVES = ("nsgan", "wgan")


@dataclass(frozen=True)
class Settings:
    steps: int = 2000
    every: int = 100
    width: int = 16
    nsgan_lr: float = 2e-4
    wgan_lr: float = 2e-4
    classifier_steps: int = 1500
    seed: int = 0


def digit_classifier(data: Data, settings: Settings) -> tuple[nn.Module, float]:
    """And what part of the held-out digits it names rightly."""
    train, held_out = labels("digits")
    make = partial(mlp_critic, Sizes(data.shape, 1, 128, False), CLASSES, hidden=2)
    network = train_classifier(make, data.train, train, settings.classifier_steps, settings.seed)
    return network, accuracy(network(data.held_out), held_out)


def modes(classifier: nn.Module, samples: Tensor) -> dict[str, float]:
    """Classes that are found, exp of the entropy of how often each is, and what varies within them.

    The last is the mean square distance of samples to the mean of their class.
    """
    which = classifier(samples).argmax(1)
    counts = torch.bincount(which, minlength=CLASSES)
    members = nn.functional.one_hot(which, CLASSES).to(samples)
    means = members.T @ samples / counts.clamp(min=1).unsqueeze(1)
    return {
        "classes": int((counts >= LEAST_SHARE * len(samples)).sum()),
        "exp entropy": float(torch.as_tensor(entropy(counts)).exp()),
        "variation within": (samples - means[which]).square().sum(1).mean().item(),
    }


def followed(settings: Settings, data: Data, classifier: nn.Module, name: str, generator: str) -> tuple[Any, Tensor]:
    """Measures along a run, and samples at its end."""
    how = objective(name, lr=settings.nsgan_lr if name == "nsgan" else settings.wgan_lr)
    how = with_networks(how, make_generator=GENERATORS[generator])
    config = Config(objective=name, architecture="dcgan", width=settings.width, seed=settings.seed)
    training, judge = Training(config, data, how), Judge(data)

    def look() -> dict[str, float]:
        samples = training.evaluation_samples()
        return {"mmd2": judge.mmd2(samples), **modes(classifier, samples)}

    found = curves(training, settings.steps, settings.every, look)
    along = {measure: found[measure] for measure in ("step", "mmd2", "classes", "exp entropy", "variation within")}
    last = {measure: values[-1] for measure, values in along.items()}
    return {"along the run": along, "last": last}, training.evaluation_samples()


def run(settings: Settings) -> Found:
    data = load("digits", SIDE)
    classifier, right = digit_classifier(data, settings)
    numbers: dict[str, Any] = {"classifier is right": right, "held-out digits": modes(classifier, data.held_out)}
    samples = {}
    for name in OBJECTIVES:
        numbers[name] = {}
        for generator in GENERATORS:
            found, samples[name, generator] = followed(settings, data, classifier, name, generator)
            numbers[name][generator] = found
    return Found(numbers, partial(draw, numbers, samples, data.shape), (12, 6))


def draw(
    numbers: dict[str, Any], samples: dict[tuple[str, str], Tensor], shape: tuple[int, ...], figure: Figure
) -> None:
    panels = figure.subplots(len(OBJECTIVES), len(GENERATORS) + 1)
    edge = SHOWN * (SIDE + GAP) - GAP
    for row, name in zip(panels, OBJECTIVES, strict=True):
        for axes, generator in zip(row, GENERATORS, strict=False):
            found = numbers[name][generator]["last"]
            few = sample_grid(samples[name, generator], shape)[:edge, :edge]
            axes.imshow(few.numpy(), cmap=GREYS, interpolation="nearest")
            axes.set(xticks=[], yticks=[], title=f"{name}, {generator}")
            axes.set_xlabel(f"{found['classes']} classes, exp entropy {found['exp entropy']:.1f}")
            along = numbers[name][generator]["along the run"]
            row[-1].plot(along["step"], along["mmd2"], label=generator)
        row[-1].set(title=f"{name}: MMD² to held-out digits", xlabel="generator steps", yscale="log")
        row[-1].grid(alpha=0.3)
        row[-1].sharey(panels[0, -1])
    panels[1, -1].legend(frameon=False, fontsize=8, loc="lower left")


EXPERIMENT = Experiment("generators", "Which generators lose modes, under nsgan and under wgan?", Settings, run)
