"""What clipped and penalised critics make of three data sets, the generator held at data + noise.

Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", figure 1 (a).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
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
    steps: int = 1500
    batch_size: int = 128
    width: int = 128
    hidden: int = 3
    noise: float = 1.0
    clip: float = 0.01
    clipped_lr: float = 5e-5
    penalised_lr: float = 1e-3
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
        how = objective("wgan-gp", lr=settings.penalised_lr)

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


def examined(critic: nn.Module, real: Tensor, fake: Tensor, seed: int) -> dict[str, float]:
    norms = slopes(critic, between(real, fake, seed))
    with torch.no_grad():
        of_real, of_fake = critic(real), critic(fake)
    value = (of_real.mean() - of_fake.mean()).item()
    return {
        "value": value,
        "mean slope": norms.mean().item(),
        "steepest slope": norms.max().item(),
        "value / steepest slope": value / norms.max().item(),
        "quadratic share": quadratic_share(torch.cat([real, fake]), torch.cat([of_real, of_fake]).squeeze(1)),
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
            numbers[name][kind] = examined(critic, real, fake, settings.seed)
            pictures.append((f"{name}, {kind}", real, surface(critic, real, settings.resolution)))
    return Found(numbers, partial(draw, pictures), (3.7 * len(settings.data), 6.2))


@torch.no_grad()
def surface(critic: nn.Module, real: Tensor, resolution: int) -> tuple[np.ndarray, np.ndarray]:
    """Places along both axes, and the critic's values there."""
    reach = 1.3 * real.abs().max().item()
    line = torch.linspace(-reach, reach, resolution)
    points = torch.cartesian_prod(line, line)
    return line.numpy(), critic(points).reshape(resolution, resolution).T.numpy()


def draw(pictures: list[Any], figure: Figure) -> None:
    panels = figure.subplots(2, len(pictures) // 2, squeeze=False)
    for axes, (title, real, (line, values)) in zip(panels.T.flatten(), pictures, strict=True):
        axes.contourf(line, line, values, levels=20, cmap="viridis")
        axes.scatter(*real[:400].T.numpy(), s=2, color="orange")
        axes.set(aspect="equal", title=title, xticks=[], yticks=[])


EXPERIMENT = Experiment("surfaces", "What do clipped and penalised critics see of a distribution?", Settings, run)
