"""The speed of a run beside that of the same run on plain PyTorch."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass

from .config import Config
from .data import Data
from .interrupt import Interrupt
from .loop import Training
from .objectives.wgan_gp import WGANGP, PlainWGANGP

ROUNDS = 12
STEPS_PER_ROUND = 50


@dataclass(frozen=True)
class Comparison:
    """Steps per second, medians over rounds; speedup is the median of the ratio within a round."""

    rounds: int
    steps_per_round: int
    library: float
    plain: float
    speedup: float
    speedup_range: tuple[float, float]


def compare(config: Config, data: Data, interrupt: Interrupt) -> Comparison | None:
    """Times the first steps of the run both ways, from one seed, without checks and evaluations; None if interrupted.

    The two runs take turns, so that whatever else the machine does slows both alike. The first round warms up and is
    not counted.
    """
    steps = min(STEPS_PER_ROUND, config.steps)
    rounds = min(ROUNDS, config.steps // steps)
    runs = [Training(config, data, objective) for objective in (WGANGP(), PlainWGANGP())]
    rates: list[list[float]] = [[], []]
    for number in range(rounds):
        # Who goes first changes with every round.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.perf_counter()
            for _ in range(steps):
                runs[which].step()
                if interrupt.requested:
                    return None
            rates[which].append(steps / (time.perf_counter() - start))
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
    )
