"""Speed and memory of a run and its loss curve beside those of the same run on plain PyTorch."""

import time
from itertools import accumulate
from statistics import median
from typing import Any

import torch
from torch.autograd.profiler import profile

from .config import Config
from .data import Data
from .loop import Training
from .objectives import make_objective
from .run import Interrupt

ROUNDS = 12
STEPS_PER_ROUND = 50
# Of float64. A float32 rounding that takes a sample across a kink, or turns the sign of a gradient close to 0, turns a
# step of Adam in full: from there on two correct runs part.
CURVE_TOLERANCE = 1e-9
NAMES = ("library", "plain PyTorch")


def compare(config: Config, data: Data, interrupt: Interrupt) -> dict[str, Any] | None:
    """Times the first steps of the run both ways, from one seed, without checks and evaluations; None if interrupted.

    The two runs take turns, so that whatever else the machine does slows both alike, in `rounds`, of which the first
    warms up and is not counted. Rates are medians; speedup is the median of the ratio within a round. `bytes` is the
    most that a step holds, beside networks and data; `curves` are the first update's losses, in float32.
    """

    def steps_of(run: Training) -> list[list[float]]:
        return [list(run.step().values()) for _ in range(steps) if not interrupt.requested]

    steps = min(STEPS_PER_ROUND, config.steps)
    ours, theirs = (torch.tensor(steps_of(run), dtype=torch.float64) for run in both_ways(config, data, torch.float64))
    runs, curves, rates = both_ways(config, data, torch.float32), ([], []), ([], [])
    for number in range(min(ROUNDS, config.steps // steps)):
        # Who goes first changes with every round.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.perf_counter()
            curves[which].extend(figures[0] for figures in steps_of(runs[which]))
            rates[which].append(steps / (time.perf_counter() - start))
    if interrupt.requested:
        return None
    rates = [rate[1:] or rate for rate in rates]
    ratios = [library / plain for library, plain in zip(*rates, strict=True)]
    # Of a step's figures, relative to their size over all steps; NaN where one is.
    difference = ((ours - theirs).abs() / theirs.abs().amax(0).clamp(min=torch.finfo(ours.dtype).tiny)).max().item()
    rounds = {"rounds": len(ratios), "steps_per_round": steps}
    speed = {"speedup": median(ratios), "speedup_range": (min(ratios), max(ratios))}
    # NaN is not the same curve.
    curve = {"curve_steps": steps, "curve_difference": difference, "same_curve": difference <= CURVE_TOLERANCE}
    of_each = {"rates": map(median, rates), "bytes": map(memory, runs), "curves": curves}
    return rounds | speed | curve | {name: dict(zip(NAMES, each, strict=True)) for name, each in of_each.items()}


def both_ways(config: Config, data: Data, dtype: torch.dtype) -> list[Training]:
    return [Training(config, data, make_objective(config, plain), dtype) for plain in (False, True)]


def memory(run: Training) -> int:
    """How much more than before is held at once in a step."""
    with profile(profile_memory=True) as found:
        run.step()
    events = [event for event in found.kineto_results.events() if event.name() == "[memory]"]
    return max(accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())))
