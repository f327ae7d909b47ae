"""Speed and memory of a run and its loss curve beside those of the same run on plain PyTorch."""

from __future__ import annotations

import json
import tempfile
import time
from itertools import accumulate
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

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
    return {
        "rounds": len(ratios),
        "steps_per_round": steps,
        "rates": dict(zip(NAMES, map(median, rates), strict=True)),
        "speedup": median(ratios),
        "speedup_range": (min(ratios), max(ratios)),
        "bytes": dict(zip(NAMES, map(memory, runs), strict=True)),
        "curve_steps": steps,
        "curve_difference": difference,
        "same_curve": difference <= CURVE_TOLERANCE,  # NaN is not
        "curves": dict(zip(NAMES, curves, strict=True)),
    }


def both_ways(config: Config, data: Data, dtype: torch.dtype) -> list[Training]:
    return [Training(config, data, make_objective(config, plain), dtype) for plain in (False, True)]


def memory(run: Training) -> int:
    """How much more than before is held at once in a step."""
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run.step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "trace.json")
        found.export_chrome_trace(str(path))
        events = [each for each in json.loads(path.read_text())["traceEvents"] if each.get("name") == "[memory]"]
    events.sort(key=lambda event: event["ts"])
    return max(accumulate(event["args"]["Bytes"] for event in events))
