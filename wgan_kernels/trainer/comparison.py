"""Speed and memory of a run and its loss curve beside those of the same run on plain PyTorch."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from pathlib import Path
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
    steps = min(STEPS_PER_ROUND, config.steps)
    exact = [_steps(run, steps, interrupt) for run in _both_ways(config, data, torch.float64)]
    runs = _both_ways(config, data, torch.float32)
    curves: list[list[list[float]]] = [[], []]
    rates: list[list[float]] = [[], []]
    for number in range(min(ROUNDS, config.steps // steps)):
        # Who goes first changes with every round.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.perf_counter()
            curves[which] += _steps(runs[which], steps, interrupt)
            rates[which].append(steps / (time.perf_counter() - start))
    if interrupt.requested:
        return None
    rates = [rate[1:] or rate for rate in rates]
    ratios = [ours / theirs for ours, theirs in zip(*rates, strict=True)]
    difference = _difference(*exact)
    return {
        "rounds": len(ratios),
        "steps_per_round": steps,
        "rates": dict(zip(NAMES, map(statistics.median, rates), strict=True)),
        "speedup": statistics.median(ratios),
        "speedup_range": (min(ratios), max(ratios)),
        "bytes": dict(zip(NAMES, map(_memory, runs), strict=True)),
        "curve_steps": steps,
        "curve_difference": difference,
        "same_curve": difference <= CURVE_TOLERANCE,  # NaN is not
        "curves": {name: [values[0] for values in curve] for name, curve in zip(NAMES, curves, strict=True)},
    }


def _both_ways(config: Config, data: Data, dtype: torch.dtype) -> list[Training]:
    return [Training(config, data, make_objective(config, plain), dtype) for plain in (False, True)]


def _steps(run: Training, number: int, interrupt: Interrupt) -> list[list[float]]:
    return [list(run.step().values()) for _ in range(number) if not interrupt.requested]


def _difference(library: list[list[float]], plain: list[list[float]]) -> float:
    """The largest difference of a step's figures, relative to their size over all steps; NaN where one is."""
    ours, theirs = torch.tensor([library, plain], dtype=torch.float64)
    if not ours.numel():
        return 0.0  # interrupted
    size = theirs.abs().amax(0).clamp(min=torch.finfo(torch.float64).tiny)
    return ((ours - theirs).abs() / size).max().item()


def _memory(run: Training) -> int:
    """How much more than before is held at once in a step."""
    if run.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run.step()
        return torch.cuda.max_memory_allocated() - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        run.step()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        found.export_chrome_trace(str(path))
        events = [each for each in json.loads(path.read_text())["traceEvents"] if each.get("name") == "[memory]"]
    held = most = 0
    for event in sorted(events, key=lambda event: event["ts"]):
        held += event["args"]["Bytes"]
        most = max(most, held)
    return most
