"""Momentum for critics that are clipped or penalised, and batch normalisation in a penalised one.

Sources: Arjovsky et al. 2017, "Wasserstein GAN", section 4.3, for the trouble with momentum and the cosine that tells;
Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", section 4, for critics without batch normalisation.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from statistics import fmean
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

import wgan_kernels as wk

from ..config import Config
from ..data import Judge, load
from ..loop import Training
from ..networks import Sizes, mlp_critic
from ..objectives.base import Adversarial, Terms
from ..objectives.wgan import WGAN
from ..objectives.wgan_gp import WGANGP
from .critics import objective
from .experiment import Experiment, Found
from .runs import curves, with_networks

BETAS = {"RMSProp": None, "Adam, β₁ = 0": (0.0, 0.999), "Adam, β₁ = 0.9": (0.9, 0.999)}
CRITICS = {"clipped": "wgan", "penalised": "wgan-gp"}


@dataclass(frozen=True)
class Settings:
    rates: tuple[float, ...] = (5e-5, 2e-4, 1e-3)  # of the critic
    generator_lr: float = 5e-4
    steps: int = 1200
    normalised_steps: int = 750
    normalised_lr: float = 5e-4
    normalised_seeds: int = 4
    every: int = 30
    seed: int = 0


def with_optimizer(how: Adversarial, name: str, lr: float, cosines: list[float]) -> Adversarial:
    """The objective with this optimiser of the critic, of whose steps the cosines with minus the gradient are kept."""
    usual = how.optimizer
    clip = how.clip if isinstance(how, WGAN) else None

    def make(player: str, params: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        if player != "critic":
            return usual(player, params)
        if BETAS[name] is None:
            return wk.optim.ClippedRMSprop(params, lr, clip=clip)
        params = list(params)
        optimizer = torch.optim.Adam(params, lr, betas=BETAS[name])
        keep_cosines(optimizer, params, cosines)
        if clip:
            optimizer.register_step_post_hook(lambda *_: wk.clip_weights_(params, clip))
        return optimizer

    how.optimizer = make
    return how


def keep_cosines(optimizer: torch.optim.Optimizer, params: list[nn.Parameter], cosines: list[float]) -> None:
    before: list[Tensor] = []

    def note(*_: Any) -> None:
        before[:] = [param.detach().clone() for param in params]

    def compare(*_: Any) -> None:
        step = torch.cat([(param.detach() - old).flatten() for param, old in zip(params, before, strict=True)])
        gradient = torch.cat([param.grad.flatten() for param in params])
        cosines.append(-torch.cosine_similarity(step, gradient, dim=0).item())

    optimizer.register_step_pre_hook(note)
    optimizer.register_step_post_hook(compare)


def normalised_critic(sizes: Sizes, outputs: int) -> nn.Sequential:
    """mlp-small's, with batch normalisation before every activation."""
    layers = []
    for layer in mlp_critic(sizes, outputs, hidden=2):
        layers += [nn.BatchNorm1d(sizes.width), layer] if isinstance(layer, nn.LeakyReLU) else [layer]
    return nn.Sequential(*layers)


class OneBatch(WGANGP):
    """Real and generated samples are normalised together, as one batch, wherever the critic compares them."""

    generator_draws = ("latent", "real")

    def critic_terms(self, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> Terms:
        of_real, of_fake = critic(torch.cat([real, fake])).chunk(2)
        settings = {"weight": self.penalty_weight, "mix": mix, "return_norms": True}
        penalty, norms = wk.gradient_penalty(critic, real, fake, **settings)
        wasserstein = of_real.mean() - of_fake.mean()
        return self.named(penalty - wasserstein, wasserstein, penalty, norms)

    def generator_terms(self, critic: nn.Module, fake: Tensor, real: Tensor) -> Terms:
        return {"loss": -critic(torch.cat([real, fake]))[len(real) :].mean()}


# What becomes of batch normalisation, by what it is taken over.
NORMALISED: dict[str, Callable[[float], Adversarial]] = {
    "no batch norm": lambda lr: objective("wgan-gp", lr=lr),
    "real and generated in one batch": lambda lr: with_networks(OneBatch(lr=lr), make_critic=normalised_critic),
    "real and generated apart": lambda lr: with_networks(WGANGP(lr=lr), make_critic=normalised_critic),
}


def followed(how: Adversarial, steps: int, every: int, seed: int) -> list[float]:
    """MMD^2 to held-out digits along a run."""
    data = load("digits")
    judge, training = Judge(data), Training(Config(objective=how.name, seed=seed), data, how)
    with warnings.catch_warnings():  # that batch normalisation does not go with the penalty, which is the question
        warnings.filterwarnings("ignore", message="critic holds BatchNorm1d")
        return curves(training, steps, every, lambda: {"mmd2": judge.mmd2(training.evaluation_samples())})["mmd2"]


def optimised(settings: Settings, critic: str, name: str, lr: float) -> dict[str, Any]:
    cosines: list[float] = []
    how = with_optimizer(objective(CRITICS[critic], lr=settings.generator_lr), name, lr, cosines)
    mmd2 = followed(how, settings.steps, settings.every, settings.seed)
    half = mmd2[len(mmd2) // 2 :]
    found = {"mmd2": mmd2, "mean of the second half": fmean(half), "largest of the second half": max(half)}
    if cosines:  # a step of RMSProp has the signs of the gradient
        negative = sum(cosine < 0 for cosine in cosines) / len(cosines)
        found |= {"mean cosine": fmean(cosines), "share of negative cosines": negative}
    return found


def run(settings: Settings) -> Found:
    numbers: dict[str, Any] = {
        critic: {name: {f"{lr:g}": optimised(settings, critic, name, lr) for lr in settings.rates} for name in BETAS}
        for critic in CRITICS
    }
    seeds = range(settings.seed, settings.seed + settings.normalised_seeds)
    length = settings.normalised_steps, settings.every
    numbers["penalised, mmd2 by seeds"] = normalised = {
        name: [followed(make(settings.normalised_lr), *length, seed) for seed in seeds]
        for name, make in NORMALISED.items()
    }
    numbers["last mmd2 by seeds"] = {name: [mmd2[-1] for mmd2 in runs] for name, runs in normalised.items()}
    return Found(numbers, partial(draw, settings, numbers), (12, 3.8))


def draw(settings: Settings, numbers: dict[str, Any], figure: Figure) -> None:
    *panels, right = figure.subplots(1, 3, sharey=True)
    for axes, critic in zip(panels, CRITICS, strict=True):
        for offset, (name, by_rate) in zip((0.9, 1, 1.1), numbers[critic].items(), strict=True):
            mean, largest = ([found[f"{which} of the second half"] for found in by_rate.values()]
                             for which in ("mean", "largest"))  # fmt: skip
            rates = [offset * rate for rate in settings.rates]
            axes.vlines(rates, mean, largest, color="gray", linewidth=1)
            axes.plot(rates, mean, "o-", label=name)
        axes.set(title=f"{critic}: mean and largest, second half", xlabel="rate of the critic", xscale="log")
    panels[0].set(ylabel="MMD² of samples to held-out digits", yscale="log")
    panels[1].legend(frameon=False)
    steps = range(settings.every, settings.normalised_steps + 1, settings.every)
    for number, (name, runs) in enumerate(numbers["penalised, mmd2 by seeds"].items()):
        for seed, mmd2 in enumerate(runs):
            right.plot(steps, mmd2, f"C{number}", label=None if seed else name, linewidth=1)
    right.set(title="batch norm in a penalised critic", xlabel="generator steps")
    right.legend(frameon=False, fontsize=8, loc="upper right", bbox_to_anchor=(1, 0.9))
    for axes in (*panels, right):
        axes.grid(alpha=0.3)


EXPERIMENT = Experiment("optimisers", "Do clipped critics bear momentum, and penalised ones batch norm?", Settings, run)
