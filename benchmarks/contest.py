"""Contests: every contender is shown to compute the same thing, then all are timed in turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

OURS = "wgan_kernels"
# A contender whose calls take long in all has fewer turns, spread over the rounds, but never fewer than LEAST_TURNS.
SECONDS_FOR_ONE = 6.0
LEAST_TURNS = 3
# Calls of fewer seconds are made once more before they are timed.
QUICK = 0.5


@dataclass
class Row:
    """Median seconds of each contender on one case, and of the floor where there is one."""

    case: str
    seconds: dict[str, float]
    bars: Mapping[str, float]
    memory: float | None = None  # the most that we hold at one time, over what eager holds
    memory_bar: float | None = None
    notes: list[str] = field(default_factory=list)
    ratios: dict[str, float] = field(init=False)

    def __post_init__(self) -> None:
        ours = self.seconds[OURS]
        # A peer's ratio says how much faster we are; the floor's, how far above it we are.
        self.ratios = {
            name: ours / seconds if name == "floor" else seconds / ours
            for name, seconds in self.seconds.items()
            if name != OURS
        }

    def lines(self) -> list[str]:
        lines = [f"{self.case}: {OURS} {_duration(self.seconds[OURS])}"]
        for name, ratio in self.ratios.items():
            text = f"    {ratio:5.2f} x the floor" if name == "floor" else f"    {ratio:5.2f} x as fast as {name}"
            text = f"{text:<52} ({_duration(self.seconds[name])})"
            if name in self.bars:
                met = ratio <= self.bars[name] if name == "floor" else ratio >= self.bars[name]
                text += f"  bar {self.bars[name]:g}: {'met' if met else 'NOT MET'}"
            lines.append(text)
        lines += [f"    {note}" for note in self.notes]
        if self.memory is not None:
            text = f"    {self.memory:5.2f} of the memory of eager"
            if self.memory_bar is not None:
                text = f"{text:<52} bar {self.memory_bar:g}: {'met' if self.memory <= self.memory_bar else 'NOT MET'}"
            lines.append(text)
        return lines


ROWS: list[Row] = []


def hold(
    case: str,
    contenders: Mapping[str, Callable[[], object] | None],
    *,
    bars: Mapping[str, float] | None = None,
    check: Callable[[], Mapping[str, object]] | None = None,
    tolerance: float = 1e-4,
    floor: float | None = None,
    rounds: int = 60,
) -> Row:
    """Checks the contenders against one another, times them in turns, and keeps the row for the report.

    Args:
        contenders: name -> call, or None for a library that is not installed; one is OURS, and 'floor', where there is
            one, only moves the bytes or does the operations that cannot be avoided.
        bars: name -> the ratio to reach.
        check: gives each contender's result; left out, the calls' own results are compared.
        tolerance: largest difference relative to the largest magnitude.
        floor: its seconds, where it is computed from measured rates and not run.
    """
    notes = [f"{name} is not installed: pip install --group bench" for name in contenders if contenders[name] is None]
    calls = {name: call for name, call in contenders.items() if call is not None}
    results = check() if check else {name: call() for name, call in calls.items() if name != "floor"}
    for name, result in results.items():
        _assert_same(f"{case}: {name}", result, results[OURS], tolerance)
    times = _in_turns(calls, rounds)
    seconds = {name: statistics.median(values) for name, values in times.items()}
    row = Row(case, seconds if floor is None else {**seconds, "floor": floor}, bars or {}, notes=notes)
    ROWS.append(row)
    return row


def _in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """The seconds of each contender's turns."""
    usual = {name: _seconds(call) for name, call in calls.items()}
    turns = {name: max(int(SECONDS_FOR_ONE / usual[name]), LEAST_TURNS) for name in calls}
    times: dict[str, list[float]] = {name: [] for name in calls}
    for round_ in range(-5, rounds):
        for name, call in calls.items():
            quick = usual[name] < QUICK
            if (round_ < 0 and not quick) or round_ % max(rounds // turns[name], 1):
                continue
            if quick:
                # What the last contender left in the caches and gave back to the system is not this one's cost.
                call()
            elapsed = _seconds(call)
            if round_ >= 0:
                times[name].append(elapsed)
    return times


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _assert_same(what: str, result: object, expected: object, tolerance: float) -> None:
    results = result if isinstance(result, (list, tuple)) else [result]
    expecteds = expected if isinstance(expected, (list, tuple)) else [expected]
    assert len(results) == len(expecteds) > 0, what
    for a, b in zip(results, expecteds):
        assert isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape, what
        scale = b.detach().abs().max().clamp_min(torch.finfo(b.dtype).tiny)
        error = ((a.detach().double() - b.detach().double()).abs().max() / scale).item()
        assert error <= tolerance, f"{what} differs by {error:.1e}"


def _duration(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} us"
