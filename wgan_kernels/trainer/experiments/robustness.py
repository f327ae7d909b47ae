"""How many of random architectures each objective trains.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", section 5.1, tables 1 and 2, there with
convolutions, more layers, 200 architectures and ImageNet.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor, nn
from torch.nn import functional

from ..config import Config
from ..data import Data, Judge, fitted_gaussian, load
from ..loop import Training
from ..networks import SLOPE, Architecture, Sizes, mlp_critic
from ..objectives import make_objective
from .classifier import CLASSES, accuracy, inception_score, labels, train_classifier
from .experiment import Experiment, Found
from .runs import with_networks

OBJECTIVES = ("nsgan", "wgan", "wgan-gp")


class Softplus(nn.Module):
    """softplus(2 x + 2) / 2 - 1."""

    def forward(self, x: Tensor) -> Tensor:
        return functional.softplus(2 * x + 2) / 2 - 1


ACTIVATIONS = {"ReLU": nn.ReLU, "leaky ReLU": partial(nn.LeakyReLU, SLOPE), "softplus": Softplus, "tanh": nn.Tanh}
OF_EACH = {"nonlinearity": tuple(ACTIVATIONS), "depth": (2, 4, 8), "width": (32, 64), "normalisation": (False, True)}
Choice = dict[str, Any]  # "depth of G", "depth of D", and so on
Values = dict[str, np.ndarray]  # of each objective, (A,) of the architectures


@dataclass(frozen=True)
class Settings:
    architectures: int = 40
    critic_steps: int = 1250
    lr: float = 1e-3
    least_scores: tuple[float, ...] = (1.5, 3.0, 5.0, 6.0, 7.0)
    most_mmd2: tuple[float, ...] = (0.1, 0.01)
    seed: int = 0


def choose(number: int, seed: int) -> list[Choice]:
    draw = random.Random(seed)
    names = {f"{part} of {player}": values for part, values in OF_EACH.items() for player in "GD"}
    return [{name: draw.choice(values) for name, values in names.items()} for _ in range(number)]


def hidden(inputs: int, choice: Choice, player: str, norm: Callable[[int], nn.Module]) -> list[nn.Module]:
    """Normalised as in DCGAN: all layers of a generator, and all but the first of a critic."""
    width, activation = choice[f"width of {player}"], ACTIVATIONS[choice[f"nonlinearity of {player}"]]
    layers: list[nn.Module] = []
    for layer in range(choice[f"depth of {player}"]):
        normalised = choice[f"normalisation of {player}"] and (layer or player == "G")
        layers += [nn.Linear(width if layer else inputs, width), *([norm(width)] if normalised else []), activation()]
    return layers


def architecture(choice: Choice, objective: str) -> Architecture:
    """Normalisation is that of batches, and in a penalised critic that of layers, which couples no samples."""
    norm = nn.LayerNorm if objective == "wgan-gp" else nn.BatchNorm1d

    def critic(sizes: Sizes, outputs: int) -> nn.Sequential:
        layers = hidden(math.prod(sizes.shape), choice, "D", norm)
        return nn.Sequential(*layers, nn.Linear(choice["width of D"], outputs))

    def generator(sizes: Sizes) -> nn.Sequential:
        layers = hidden(sizes.latent, choice, "G", nn.BatchNorm1d)
        return nn.Sequential(*layers, nn.Linear(choice["width of G"], math.prod(sizes.shape)), *sizes.last())

    return Architecture(choice["width of D"], critic, generator)


def samples(settings: Settings, data: Data, choice: Choice, name: str) -> Tensor:
    """Of a generator after as many steps of its critic as every objective gets."""
    config = Config(objective=name, lr=settings.lr, seed=settings.seed)
    chosen = architecture(choice, name)
    makers = {"make_critic": chosen.make_critic, "make_generator": chosen.make_generator}
    objective = with_networks(make_objective(config), **makers)
    training = Training(config, data, objective)
    for _ in range(settings.critic_steps // objective.critic_steps):
        training.step()
    return training.evaluation_samples()


def outcomes(succeeded: Values) -> dict[str, int]:
    """How many architectures were trained by which objectives, of truth values."""
    sets = [tuple(name for name, one in zip(succeeded, each) if one) for each in zip(*succeeded.values())]
    return {kind(who): number for who, number in Counter(sets).most_common()}


def kind(who: tuple[str, ...]) -> str:
    return {0: "none", 1: f"only {''.join(who)}", len(OBJECTIVES): "all"}.get(len(who), " and ".join(who))


def successes(settings: Settings, score: Values, mmd2: Values) -> dict[str, Values]:
    """For each threshold, by which objectives which architectures were trained."""
    found = {f"score > {least:g}": {name: of > least for name, of in score.items()} for least in settings.least_scores}
    return found | {f"MMD^2 < {most:g}": {name: of < most for name, of in mmd2.items()} for most in settings.most_mmd2}


def run(settings: Settings) -> Found:
    data, (train, held_out) = load("digits"), labels("digits")
    make = partial(mlp_critic, Sizes(data.shape, 1, 64, False), CLASSES, 1)
    classify, judge = train_classifier(make, data.train, train, 1000, settings.seed), Judge(data)
    choices = choose(settings.architectures, settings.seed)
    made = {name: [samples(settings, data, choice, name) for choice in choices] for name in OBJECTIVES}
    score = {name: np.array([inception_score(classify(each)) for each in of]) for name, of in made.items()}
    mmd2 = {name: np.array([judge.mmd2(each) for each in of]) for name, of in made.items()}
    counted = successes(settings, score, mmd2)
    of_two = {name: {who: of[who] for who in ("nsgan", "wgan-gp")} for name, of in counted.items()}
    known = {"held-out digits": data.held_out, "fitted Gaussian": fitted_gaussian(data.train)}
    numbers = {
        "accuracy of the classifier": accuracy(classify(data.held_out), held_out),
        "score of": {name: inception_score(classify(each)) for name, each in known.items()},
        "successes": {name: {who: one.sum() for who, one in of.items()} for name, of in counted.items()},
        "outcomes": {name: outcomes(of) for name, of in counted.items()},
        "outcomes without wgan": {name: outcomes(of) for name, of in of_two.items()},
        "median score": {name: np.median(of) for name, of in score.items()},
        "mean score by choice": by_choice(choices, score),
        "score": score,
        "mmd2": mmd2,
        "architectures": choices,
    }
    return Found(numbers, partial(draw, numbers), (13, 5.2))


def by_choice(choices: list[Choice], score: Values) -> dict[str, dict[str, float]]:
    """Of each objective, over the architectures with that choice; those that were never drawn are left out."""
    found: dict[str, dict[str, float]] = {}
    for part, values in OF_EACH.items():
        for player in "GD":
            for value in values:
                which = np.array([choice[f"{part} of {player}"] == value for choice in choices])
                if which.any():
                    means = {name: of[which].mean() for name, of in score.items()}
                    found[f"{part} of {player}: {value}"] = means
    return found


def draw(numbers: dict[str, Any], figure: Figure) -> None:
    curves, bars, means = figure.subplots(1, 3, width_ratios=(1, 1.1, 1))
    for name, of in numbers["score"].items():
        curves.plot(range(1, len(of) + 1), np.sort(of)[::-1], "o-", markersize=3, label=name)
    for (name, value), style in zip(numbers["score of"].items(), ("--", ":"), strict=True):
        curves.axhline(value, color="black", linewidth=1, linestyle=style, label=name)
    curves.set(title="scores, best first", xlabel="rank of the architecture", ylabel="inception-like score")
    draw_outcomes(bars, numbers["outcomes"])
    places = range(len(numbers["mean score by choice"]))
    for name in OBJECTIVES:
        means.plot([of[name] for of in numbers["mean score by choice"].values()], places, "o", markersize=4, label=name)
    means.set_yticks(places, numbers["mean score by choice"], fontsize=7)
    means.set(title="mean score by choice", xlabel="inception-like score")
    means.invert_yaxis()
    means.grid(alpha=0.3)
    for axes in (curves, bars, means):
        axes.legend(frameon=False, fontsize=8, ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.13))


def draw_outcomes(axes: Axes, found: dict[str, dict[str, int]]) -> None:
    """A bar for each way to count, of parts with their numbers."""
    subsets = [tuple(name for bit, name in enumerate(OBJECTIVES) if code >> bit & 1) for code in range(8)]
    colours = ("lightgrey", "C0", "C1", "C4", "C2", "C9", "C8", "C6")
    left = np.zeros(len(found))
    for name, colour in zip(map(kind, subsets), colours, strict=True):
        numbers = np.array([of.get(name, 0) for of in found.values()])
        if numbers.any():
            parts = axes.barh(list(found), numbers, left=left, color=colour, label=name)
            axes.bar_label(parts, [str(number or "") for number in numbers], label_type="center", fontsize=8)
        left += numbers
    axes.invert_yaxis()
    axes.set(title="trained by which objectives", xlabel="number of architectures")


EXPERIMENT = Experiment("robustness", "How many random architectures does each objective train?", Settings, run)
