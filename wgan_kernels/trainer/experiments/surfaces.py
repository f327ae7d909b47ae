"""What clipped and penalised critics make of three data sets, the generator held at data + noise.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", figure 1 (a).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from ..data import Data, load
from .critics import between, make_critic, objective, rows, slopes, train_critic
from .experiment import Experiment, Found
from .transport import distance


@dataclass(frozen=True)
class Settings:
    data: tuple[str, ...] = ("8gaussians", "25gaussians", "swissroll")
    steps: int = 8000
    batch_size: int = 256
    width: int = 128
    hidden: int = 3
    noise: float = 1.0
    clip: float = 0.01
    clipped_lr: float = 5e-5
    penalised_lr: float = 1e-3
    penalty_weight: float = 0.1  # as in that paper's code for toys
    near: float = 0.2  # how far beside the data is
    samples: int = 1000
    resolution: int = 96
    seed: int = 0


def pair(points: Tensor, number: int, noise: float, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """Real samples, and other ones with noise."""
    real, centres = (rows(points, number, random) for _ in range(2))
    return real, centres + noise * torch.randn(centres.shape, generator=random)


def trained(settings: Settings, data: Data, kind: str) -> nn.Sequential:
    if kind == "clipped":
        how = objective("wgan", clip=settings.clip, lr=settings.clipped_lr)
    else:
        how = objective("wgan-gp", lr=settings.penalised_lr, penalty_weight=settings.penalty_weight)

    def draw(random: torch.Generator) -> tuple[Tensor, Tensor]:
        return pair(data.train, settings.batch_size, settings.noise, random)

    critic = make_critic(2, settings.width, settings.hidden, settings.seed)
    return train_critic(how, critic, draw, settings.steps, settings.seed)


def quadratic_share(points: Tensor, values: Tensor) -> float:
    """The part of the values' variance that a polynomial of degree 2 of the points explains."""
    x, y = points.double().T
    terms = torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y], 1)
    rest = values.double() - terms @ torch.linalg.lstsq(terms, values.double()).solution
    return 1 - (rest.var() / values.double().var()).item()


def examined(critic: nn.Module, real: Tensor, fake: Tensor, settings: Settings) -> dict[str, float]:
    """Of held-out samples; a K-Lipschitz critic that is best has the value K W1."""
    random = torch.Generator().manual_seed(settings.seed)
    steps = settings.near * torch.randn(real.shape, generator=random)
    steepest = slopes(critic, torch.cat([real, fake, between(real, fake, settings.seed)])).max().item()
    points, values = surface(critic, real, settings.resolution)
    with torch.no_grad():
        value = (critic(real).mean() - critic(fake).mean()).item()
        falls = (critic(real) - critic(real + steps)).mean() / steps.norm(dim=1).mean()
    return {
        "value": value,
        "steepest slope": steepest,
        "value / steepest slope": value / steepest,
        "fall beside the data / steepest slope": falls.item() / steepest,
        "share of the surface that a quadratic explains": quadratic_share(points, values),
    }


def run(settings: Settings) -> Found:
    numbers: dict[str, Any] = {}
    pictures = []
    for name in settings.data:
        data = load(name)
        random = torch.Generator().manual_seed(settings.seed + 1)
        real, fake = pair(data.held_out, settings.samples, settings.noise, random)
        numbers[name] = {"distance of samples by linear programming": distance(real, fake)}
        for kind in ("clipped", "penalised"):
            critic = trained(settings, data, kind)
            numbers[name][kind] = examined(critic, real, fake, settings)
            pictures.append((f"{name}, {kind}", real, surface(critic, real, settings.resolution)))
    return Found(numbers, partial(draw, pictures), (3.7 * len(settings.data), 6.2))


@torch.no_grad()
def surface(critic: nn.Module, real: Tensor, resolution: int) -> tuple[Tensor, Tensor]:
    """A square of resolution^2 points around the data, (N, 2), and the critic's values there, (N,)."""
    reach = 1.3 * real.abs().max().item()
    line = torch.linspace(-reach, reach, resolution)
    points = torch.cartesian_prod(line, line)
    return points, critic(points).squeeze(1)


def draw(pictures: list[Any], figure: Figure) -> None:
    panels = figure.subplots(2, len(pictures) // 2, squeeze=False)
    for axes, (title, real, (points, values)) in zip(panels.T.flatten(), pictures, strict=True):
        axes.tricontourf(*points.T.numpy(), values.numpy(), levels=20, cmap="viridis")
        axes.scatter(*real[:400].T.numpy(), s=2, color="orange")
        axes.set(aspect="equal", title=title, xticks=[], yticks=[])


EXPERIMENT = Experiment("surfaces", "What do clipped and penalised critics see of a distribution?", Settings, run)
