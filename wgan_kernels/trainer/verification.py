"""The steps of a run, checked against plain PyTorch while they are made.

Both sides run in float64 on the same weights, draws and states of the optimiser. In float32 two correct programs may
fall on different sides of an activation's kink and differ by 1e-2 in a gradient, so that no tolerance could both pass
these and catch a formula that is a little wrong. In float64 the rounding of a batch's sums stays far below 1e-9 of the
largest gradient, and the chance that it crosses a kink is negligible. The training step itself, in float32, is held to
what float32 allows: its loss, not its gradients, and loosely, to one sample's share of it, so that one sample on the
other side of a kink does not stop a run; with autocast it is not held to anything.
"""

from __future__ import annotations

import math
import operator
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from . import ranks
from .config import Config
from .loop import Training
from .objectives import make_objective
from .objectives.base import Batch, Terms, Update

TOLERANCE = 1e-9
TINY = torch.finfo(torch.float64).tiny


class VerificationError(Exception):
    """The library and plain PyTorch disagree; the message is the report."""


class Errors(NamedTuple):
    """Relative errors."""

    loss: float = 0.0
    gradient: float = 0.0
    weights: float = 0.0  # after the optimiser's step
    float32_loss: float = 0.0


class Side(NamedTuple):
    """What one objective gives in float64: terms, gradients, and the weights that they lead to."""

    terms: Terms
    gradients: dict[str, Tensor]
    weights: dict[str, Tensor]


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
        library, plain = (self._side(update, training, batch, plain) for plain in (False, True))
        loss = plain.terms["loss"]
        if not loss.isfinite():
            return  # diverged, whoever computes it
        # The parts of a loss may cancel: errors are relative to their size, not to that of their sum.
        parts = [plain.terms["size"]] if "size" in plain.terms else plain.terms.values()
        size = torch.stack([part.abs() for part in parts]).sum().clamp(min=TINY)
        found = Errors(
            ((library.terms["loss"] - loss).abs() / size).item(),
            _difference(library.gradients, plain.gradients),
            _difference(library.weights, plain.weights),
            ((trained["loss"] - loss).abs() / size).item(),
        )
        one_sample = ranks.count() / training.objective.batch_size
        limits = Errors(TOLERANCE, TOLERANCE, TOLERANCE, math.inf if training.config.amp else one_sample)
        # Written so that NaN does not pass.
        if not all(map(operator.le, found, limits)):
            where = f"step {training.step_count + 1}, {update.name}"
            raise VerificationError(_report(where, trained, library, plain, found, limits))
        self.checks += 1
        self.worst = Errors(*map(max, found, self.worst))

    def _side(self, update: Update, training: Training, batch: Batch, plain: bool) -> Side:
        data = training.data._replace(train=training.data.train[:1])  # which the batch was drawn from already
        side = Training(self.config, data, make_objective(self.config, plain), torch.float64)
        side.load_state_dict(deepcopy(training.state_dict()))
        terms = side.loss(update, batch.each(Tensor.double))
        side.descend(update, terms["loss"])
        players = {name: p for name, p in side.networks.named_parameters() if name.partition(".")[0] in update.players}
        return Side(terms, {name: p.grad for name, p in players.items()}, {n: p.detach() for n, p in players.items()})


def _difference(library: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    # One scale for all: the exact gradient of the last bias may be 0, and its rounding is not an error.
    largest = torch.stack([value.abs().max() for value in plain.values()]).max()
    differences = torch.stack([(library[name] - value).abs().max() for name, value in plain.items()])
    return (differences.max() / largest.clamp(min=TINY)).item()


def _report(where: str, trained: Terms, library: Side, plain: Side, found: Errors, limits: Errors) -> str:
    lines = [f"{where}: library and plain PyTorch disagree on the same weights and draws"]
    for name, error, limit in zip(Errors._fields, found, limits):
        lines.append(f"  relative error {error:9.2e}, tolerance {limit:.0e}: {name}")
    lines.append(f"  {'':40}{'library':>16}{'plain PyTorch':>16}")
    pairs = {"loss as trained on": (trained["loss"], plain.terms["loss"])}
    pairs |= {f"{name}, float64": (library.terms[name], value) for name, value in plain.terms.items()}
    for name, value in plain.gradients.items():
        pairs[f"gradient of {name}, norm"] = (library.gradients[name].norm(), value.norm())
    return "\n".join(lines + [f"  {name:40}{one.item():16.9g}{two.item():16.9g}" for name, (one, two) in pairs.items()])
