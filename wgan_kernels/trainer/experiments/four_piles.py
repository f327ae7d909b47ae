"""The earth mover's distance of four piles, in four ways.

Source: the example of L. Weng 2019, "From GAN to WGAN"; the programmes are those of Villani 2009, "Optimal Transport",
chapters 5 and 6.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from scipy.optimize import linprog

from .experiment import Experiment, Found
from .transport import cheapest_plan, potentials


@dataclass(frozen=True)
class Settings:
    p: tuple[float, ...] = (3, 2, 1, 4)
    q: tuple[float, ...] = (1, 2, 4, 3)


def run(settings: Settings) -> Found:
    p, q = np.array(settings.p, dtype=float), np.array(settings.q, dtype=float)
    places = np.arange(len(p))
    cost = np.abs(places[:, None] - places[None]).astype(float)
    delta = np.cumsum(p - q)  # delta_{i+1} = delta_i + P_i - Q_i: what has to go on to the next place
    plan, (f1, f2), f = cheapest_plan(p, q, cost), potentials(p, q, cost), lipschitz_potential(p, q)
    numbers = {
        "delta": delta,
        "distance": {
            "delta recursion": np.abs(delta).sum(),
            "linear programme": (plan * cost).sum(),
            "its dual": p @ f1 + q @ f2,
            "dual with f2 = -f1": (p - q) @ f,
        },
        "plan": plan,
        "f1": f1,
        "f2": f2,
        "largest |f1 + f2|": np.abs(f1 + f2).max(),
        "f": f,
    }
    return Found(numbers, partial(draw, settings, numbers), (11, 3.4))


def lipschitz_potential(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """f with the largest sum_i (p_i - q_i) f_i and |f_{i+1} - f_i| <= 1 (Kantorovich-Rubinstein); f_0 = 0."""
    steps = np.diff(np.eye(len(p)), axis=0)
    bounds = [(0, 0), *[(None, None)] * (len(p) - 1)]
    found = linprog(q - p, A_ub=np.vstack([steps, -steps]), b_ub=np.ones(2 * len(steps)), bounds=bounds)
    return found.x


def draw(settings: Settings, numbers: dict[str, Any], figure: Figure) -> None:
    piles, plan, duals = figure.subplots(1, 3)
    places = np.arange(1, len(settings.p) + 1)
    piles.bar(places - 0.2, settings.p, 0.4, label="P")
    piles.bar(places + 0.2, settings.q, 0.4, label="Q")
    piles.set(title="the piles", xlabel="place", xticks=places, ylim=(0, 1.35 * max(*settings.p, *settings.q)))
    piles.legend(frameon=False, ncols=2)
    plan.imshow(numbers["plan"], cmap="Blues", vmin=0, vmax=1.5 * numbers["plan"].max())
    for (row, column), amount in np.ndenumerate(numbers["plan"]):
        plan.text(column, row, f"{amount:g}", ha="center", va="center")
    plan.set(title="a cheapest plan", xlabel="to place", ylabel="from place")
    plan.set(xticks=places - 1, xticklabels=places, yticks=places - 1, yticklabels=places)
    duals.plot(places, numbers["f1"] - numbers["f1"][0], "o-", label="f1 of the dual, less its first")
    duals.plot(places, -(numbers["f2"] - numbers["f2"][0]), "s--", label="-f2, less its first")
    duals.plot(places, numbers["f"], "^:", label="1-Lipschitz f")
    duals.set(title=f"potentials: distance {numbers['distance']['its dual']:g}", xlabel="place", xticks=places)
    duals.legend(frameon=False, fontsize=8)


EXPERIMENT = Experiment("four-piles", "Do the recursion and both linear programmes give one distance?", Settings, run)
