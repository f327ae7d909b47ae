"""Two players on f1 = xy, f2 = -xy: x descends f1, y descends f2, both at once or one after the other.

Source: Goodfellow 2016, "NIPS 2016 Tutorial: Generative Adversarial Networks", section 8.2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from .experiment import Experiment, Found


@dataclass(frozen=True)
class Settings:
    eta: float = 0.1
    steps: int = 300
    start: tuple[float, float] = (1.0, 1.0)


def play(settings: Settings, alternating: bool) -> np.ndarray:
    """(steps + 1, 2) positions: x <- x - eta y and y <- y + eta x, where the alternating y sees the new x."""
    (x, y), eta = settings.start, settings.eta
    path = [(x, y)]
    for _ in range(settings.steps):
        new_x = x - eta * y
        x, y = new_x, y + eta * (new_x if alternating else x)
        path.append((x, y))
    return np.array(path)


def run(settings: Settings) -> Found:
    paths = {name: play(settings, name == "alternating") for name in ("simultaneous", "alternating")}
    radii = {name: np.hypot(*path.T) for name, path in paths.items()}
    x, y = paths["alternating"].T
    kept = x**2 + y**2 - settings.eta * x * y
    growth = radii["simultaneous"][1:] / radii["simultaneous"][:-1]
    numbers = {
        "growth a step": {"smallest": growth.min(), "largest": growth.max()},
        "sqrt(1 + eta^2)": math.sqrt(1 + settings.eta**2),
        "last radius": {name: radius[-1] for name, radius in radii.items()},
        "alternating": {
            "smallest radius": radii["alternating"].min(),
            "largest radius": radii["alternating"].max(),
            "change of x^2 + y^2 - eta x y": np.ptp(kept),
        },
    }
    return Found(numbers, partial(draw, settings, paths, radii), (10, 4.2))


def draw(settings: Settings, paths: dict[str, Any], radii: dict[str, Any], figure: Figure) -> None:
    plane, growth = figure.subplots(1, 2)
    for name, path in paths.items():
        plane.plot(*path.T, linewidth=1, label=name)
        growth.plot(radii[name], label=name)
    plane.plot(*settings.start, "ko", markersize=4, label="start")
    plane.plot(0, 0, "k+", label="equilibrium")
    plane.set(title=f"steps of {settings.eta:g}", xlabel="x", ylabel="y", aspect="equal")
    steps = np.arange(settings.steps + 1)
    predicted = radii["simultaneous"][0] * (1 + settings.eta**2) ** (steps / 2)
    growth.plot(steps, predicted, "k:", label="$r_0 (1 + \\eta^2)^{t/2}$")
    growth.set(title="distance from the equilibrium", xlabel="steps t", yscale="log")
    growth.yaxis.set_major_formatter("{x:g}")
    growth.yaxis.set_minor_formatter("{x:g}")
    growth.legend(frameon=False)
    plane.legend(frameon=True, fontsize=8, loc="upper right")


EXPERIMENT = Experiment("xy-game", "Do gradient steps of both players find the equilibrium of xy?", Settings, run)
