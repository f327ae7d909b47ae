"""The speed of a run and its loss curve beside those of the same run on plain PyTorch."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

import torch

from .config import Config
from .data import Data
from .interrupt import Interrupt
from .loop import Training
from .objectives.wgan_gp import WGANGP, PlainWGANGP

ROUNDS = 12
STEPS_PER_ROUND = 50
CURVE_STEPS = 50
# Of float64. A float32 rounding that takes a sample across a kink, or turns the sign of a gradient close to 0, turns a
# step of Adam in full: from there on two correct runs part.
CURVE_TOLERANCE = 1e-9

Curve = list[dict[str, float]]


@dataclass(frozen=True)
class Comparison:
    """Steps per second, medians over rounds; speedup is the median of the ratio within a round."""

    rounds: int
    steps_per_round: int
    library: float
    plain: float
    speedup: float
    speedup_range: tuple[float, float]
    curve_steps: int
    curve_difference: float  # in float64
    curve_difference_float32: float

    @property
    def same_curve(self) -> bool:
        return self.curve_difference <= CURVE_TOLERANCE  # NaN is not


def compare(config: Config, data: Data, interrupt: Interrupt) -> Comparison | None:
    """Times the first steps of the run both ways, from one seed, without checks and evaluations; None if interrupted.

    The two runs take turns, so that whatever else the machine does slows both alike. The first round warms up and is
    not counted.
    """
    exact = [_steps(run, CURVE_STEPS, interrupt) for run in _both_ways(config, data, torch.float64)]
    steps = min(STEPS_PER_ROUND, config.steps)
    rounds = min(ROUNDS, config.steps // steps)
    runs = _both_ways(config, data, torch.float32)
    curves: list[Curve] = [[], []]
    rates: list[list[float]] = [[], []]
    for number in range(rounds):
        # Who goes first changes with every round.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.perf_counter()
            curves[which] += _steps(runs[which], steps, interrupt)
            rates[which].append(steps / (time.perf_counter() - start))
    if interrupt.requested:
        return None
    if rounds > 1:
        rates = [rate[1:] for rate in rates]
    library, plain = rates
    ratios = [ours / theirs for ours, theirs in zip(library, plain, strict=True)]
    return Comparison(
        rounds=len(ratios),
        steps_per_round=steps,
        library=statistics.median(library),
        plain=statistics.median(plain),
        speedup=statistics.median(ratios),
        speedup_range=(min(ratios), max(ratios)),
        curve_steps=len(exact[0]),
        curve_difference=_difference(*exact),
        curve_difference_float32=_difference(*[curve[:CURVE_STEPS] for curve in curves]),
    )


def _both_ways(config: Config, data: Data, dtype: torch.dtype) -> list[Training]:
    return [Training(config, data, objective, dtype) for objective in (WGANGP(), PlainWGANGP())]


def _steps(run: Training, number: int, interrupt: Interrupt) -> Curve:
    """As many steps as are asked for and left of the run, or fewer when interrupted."""
    left = run.config.steps - run.step_count
    return [run.step() for _ in range(min(number, left)) if not interrupt.requested]


def _difference(library: Curve, plain: Curve) -> float:
    """The largest difference of the critic's losses, relative to the loss's parts; NaN where a loss is."""
    differences = [
        abs(ours["critic_loss"] - theirs["critic_loss"]) / (abs(theirs["wasserstein"]) + theirs["penalty"])
        for ours, theirs in zip(library, plain, strict=True)
    ]
    return torch.tensor(differences, dtype=torch.float64).max().item()
