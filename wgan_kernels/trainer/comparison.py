"""Speed and memory of a run and its loss curve beside those of the same run on plain PyTorch."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile

from .config import Config
from .data import Data
from .interrupt import Interrupt
from .loop import Training
from .objectives import make_objective

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
    library_bytes: int  # at most in one step, beside networks and data
    plain_bytes: int
    curve_steps: int
    curve_difference: float  # in float64
    curve_difference_float32: float
    curves: dict[str, list[float]] = field(repr=False)  # of the first update's loss, in float32

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
    library_bytes, plain_bytes = (_memory(run) for run in runs)
    return Comparison(
        rounds=len(ratios),
        steps_per_round=steps,
        library=statistics.median(library),
        plain=statistics.median(plain),
        speedup=statistics.median(ratios),
        speedup_range=(min(ratios), max(ratios)),
        library_bytes=library_bytes,
        plain_bytes=plain_bytes,
        curve_steps=len(exact[0]),
        curve_difference=_difference(*exact),
        curve_difference_float32=_difference(*[curve[:CURVE_STEPS] for curve in curves]),
        curves={name: _losses(curve) for name, curve in zip(("library", "plain PyTorch"), curves, strict=True)},
    )


def _both_ways(config: Config, data: Data, dtype: torch.dtype) -> list[Training]:
    return [Training(config, data, make_objective(config, plain), dtype) for plain in (False, True)]


def _steps(run: Training, number: int, interrupt: Interrupt) -> Curve:
    """As many steps as are asked for and left of the run, or fewer when interrupted."""
    left = run.config.steps - run.step_count
    return [run.step() for _ in range(min(number, left)) if not interrupt.requested]


def _losses(curve: Curve) -> list[float]:
    return [next(iter(values.values())) for values in curve]


def _difference(library: Curve, plain: Curve) -> float:
    """The largest difference of a step's figures, relative to their size over all steps; NaN where one is."""
    ours, theirs = (torch.tensor([list(values.values()) for values in curve], dtype=torch.float64)
                    for curve in (library, plain))  # fmt: skip
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
