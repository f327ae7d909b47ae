"""The twin of a run, on plain PyTorch: the run's steps are checked against it, and its speed compared with it.

Checks run both sides in float64 on the same weights, draws and states of the optimiser. In float32 two correct programs
may fall on different sides of an activation's kink and differ by 1e-2 in a gradient, so that no tolerance could both
pass these and catch a formula that is a little wrong. In float64 the rounding of a batch's sums stays far below 1e-9 of
the largest gradient, and the chance that it crosses a kink is negligible. The training step itself, in float32, is held
to what float32 allows: its loss, not its gradients, and loosely, to one sample's share of it, so that one sample on the
other side of a kink does not stop a run; with autocast it is not held to anything.

Loss curves are compared in float64 too. A rounding of float32 that takes a sample across a kink, or turns the sign of a
gradient close to 0, turns a step of Adam in full: from there on two correct runs part.
"""

import time
from collections.abc import Callable, Iterable
from copy import deepcopy
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.profiler import profile

from . import ranks
from .config import Config
from .data import Data
from .loop import Training
from .objectives import make_objective
from .objectives.base import Batch, Terms, Update

TOLERANCE = 1e-9  # of a step, and of the first steps of a curve
TINY = torch.finfo(torch.float64).tiny
ROUNDS, STEPS_PER_ROUND = 12, 50  # of a comparison
NAMES = ("library", "plain PyTorch")


class VerificationError(Exception):
    """The library and plain PyTorch disagree; the message is the report."""


class Errors(NamedTuple):
    """Relative errors."""

    loss: float = 0.0
    gradient: float = 0.0
    weights: float = 0.0  # after the optimiser's step
    float32_loss: float = 0.0


Side = tuple[Terms, dict[str, nn.Parameter]]  # in float64: terms, and parameters after the step, with their gradients


class Verifier:
    """Checks updates of a run, counts them, and keeps the largest errors."""

    def __init__(self, config: Config) -> None:
        self.config = replace(config, amp=False, compile=False, cuda_graphs=False)
        self.checks, self.worst = 0, Errors()

    def __call__(self, update: Update, training: Training, batch: Batch, trained: Terms) -> None:
        """Compares an update of the objective with the plain one; raises VerificationError beyond tolerance.

        Args:
            training: as it is before the update; left so.
            trained: what the objective gave for the batch in the precision of the run.
        """
        sides = [self._side(update, training, batch, plain) for plain in (False, True)]
        ours, theirs = (terms["loss"] for terms, _ in sides)
        if not theirs.isfinite():
            return  # diverged, whoever computes it
        # The parts of a loss may cancel: errors are relative to their size, not to that of their sum.
        plain = sides[1][0]
        parts = [plain["size"]] if "size" in plain else plain.values()
        size = torch.stack([part.abs() for part in parts]).sum().clamp(min=TINY)
        loss, float32_loss = (((each - theirs).abs() / size).item() for each in (ours, trained["loss"]))
        gradient = _difference([[param.grad for param in players.values()] for _, players in sides])
        weights = _difference([players.values() for _, players in sides])
        found = Errors(loss, gradient, weights, float32_loss)
        one_sample = ranks.count() / training.objective.batch_size
        limits = Errors(TOLERANCE, TOLERANCE, TOLERANCE, torch.inf if training.config.amp else one_sample)
        # Written so that NaN does not pass.
        if not all(error <= limit for error, limit in zip(found, limits)):
            where = f"step {training.step_count + 1}, {update.name}"
            raise VerificationError(_report(where, trained, sides, found, limits))
        self.checks += 1
        self.worst = Errors(*map(max, found, self.worst))

    def _side(self, update: Update, training: Training, batch: Batch, plain: bool) -> Side:
        data = training.data._replace(train=training.data.train[:1])  # which the batch was drawn from already
        side = Training(self.config, data, make_objective(self.config, plain), torch.float64)
        side.load_state_dict(deepcopy(training.state_dict()))
        terms = side.loss(update, Batch(*[None if draw is None else draw.double() for draw in batch]))
        side.descend(update, terms["loss"])
        players = {name: p for name, p in side.networks.named_parameters() if name.partition(".")[0] in update.players}
        return terms, players


def _difference(sides: list[Iterable[Tensor]]) -> float:
    # One scale for all: the exact gradient of the last bias may be 0, and its rounding is not an error.
    ours, theirs = (torch.cat([each.detach().flatten() for each in side]) for side in sides)
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=TINY)).item()


def _report(where: str, trained: Terms, sides: list[Side], found: Errors, limits: Errors) -> str:
    (ours, our_players), (theirs, their_players) = sides
    lines = [f"{where}: library and plain PyTorch disagree on the same weights and draws"]
    for name, error, limit in zip(Errors._fields, found, limits):
        lines.append(f"  relative error {error:9.2e}, tolerance {limit:.0e}: {name}")
    lines.append(f"  {'':40}" + "".join(f"{name:>16}" for name in NAMES))
    pairs = {"loss as trained on": (trained["loss"], theirs["loss"])}
    pairs |= {f"{name}, float64": (ours[name], value) for name, value in theirs.items()}
    for name, param in their_players.items():
        pairs[f"gradient of {name}, norm"] = (our_players[name].grad.norm(), param.grad.norm())
    return "\n".join(lines + [f"  {name:40}{one.item():16.9g}{two.item():16.9g}" for name, (one, two) in pairs.items()])


def compare(config: Config, data: Data, interrupted: Callable[[], bool]) -> dict[str, Any] | None:
    """Times the first steps of the run both ways, from one seed, without checks and evaluations; None if interrupted.

    The two runs take turns, so that whatever else the machine does slows both alike, in `rounds`, of which the first
    warms up and is not counted. Rates are medians; speedup is the median of the ratio within a round. `bytes` is the
    most that a step holds, beside networks and data; `curves` are the first update's losses, in float32.
    """

    def steps_of(run: Training) -> list[list[float]]:
        return [list(run.step().values()) for _ in range(steps) if not interrupted()]

    steps = min(STEPS_PER_ROUND, config.steps)
    ours, theirs = (torch.tensor(steps_of(run), dtype=torch.float64) for run in both_ways(config, data, torch.float64))
    runs, curves, rates = both_ways(config, data, torch.float32), ([], []), ([], [])
    for number in range(min(ROUNDS, config.steps // steps)):
        # Who goes first changes with every round.
        for which in (0, 1) if number % 2 == 0 else (1, 0):
            start = time.perf_counter()
            curves[which].extend(figures[0] for figures in steps_of(runs[which]))
            rates[which].append(steps / (time.perf_counter() - start))
    if interrupted():
        return None
    rates = [rate[1:] or rate for rate in rates]
    ratios = [library / plain for library, plain in zip(*rates, strict=True)]
    # Of a step's figures, relative to their size over all steps; NaN where one is.
    difference = ((ours - theirs).abs() / theirs.abs().amax(0).clamp(min=TINY)).max().item()
    rounds = {"rounds": len(ratios), "steps_per_round": steps}
    speed = {"speedup": median(ratios), "speedup_range": (min(ratios), max(ratios))}
    # NaN is not the same curve.
    curve = {"curve_steps": steps, "curve_difference": difference, "same_curve": difference <= TOLERANCE}
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
