"""The steps of a run, checked against plain PyTorch while they are made.

Both sides run in float64 on the same weights, draws and states of the optimiser; the plain one on the reference back
end, which serves the layers of this library that its networks may have. In float32 two correct programs may fall on
different sides of an activation's kink and differ by 1e-2 in a gradient, so that no tolerance could both pass these and
catch a formula that is a little wrong. In float64 the rounding of a batch's sums stays far below 1e-9 of the largest
gradient, and the chance that it crosses a kink is negligible. The training step itself, in float32, is held to what
float32 allows: its loss, not its gradients, and loosely, to one sample's share of it, so that one sample on the other
side of a kink does not stop a run; with autocast it is not held to anything.
"""

from __future__ import annotations

import math
import operator
from copy import deepcopy
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector

import wgan_kernels as wk

from . import ranks
from .config import Config
from .loop import Training
from .objectives import make_objective
from .objectives.base import Batch, Objective, Terms, Update

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
        self.checks, self.worst, self._plain = 0, Errors(), make_objective(config, plain=True)

    def __call__(self, update: Update, training: Training, batch: Batch, trained: Terms) -> None:
        """Compares an update of the objective with the plain one; raises VerificationError beyond tolerance.

        Args:
            training: as it is before the update; left so.
            trained: what the objective gave for the batch in the precision of the run.
        """
        exact = batch.each(Tensor.double)
        library = _side(training.objective, update.name, training, exact)
        with wk.use_backend("reference"):
            plain = _side(self._plain, update.name, training, exact)
        if not plain.terms["loss"].isfinite():
            return  # diverged, whoever computes it
        rows = training.objective.batch_size // ranks.count()
        limits = Errors(TOLERANCE, TOLERANCE, TOLERANCE, math.inf if training.config.amp else 1 / rows)
        found = _errors(trained, library, plain)
        # Written so that NaN does not pass.
        if not all(map(operator.le, found, limits)):
            where = f"step {training.step_count + 1}, {update.name}"
            raise VerificationError(_report(where, trained, library, plain, found, limits))
        self.checks += 1
        self.worst = Errors(*map(max, found, self.worst))


def _side(objective: Objective, name: str, training: Training, batch: Batch) -> Side:
    (update,) = [each for each in objective.updates() if each.name == name]
    networks: nn.ModuleDict = deepcopy(training.networks).double()
    players = {name: param for name, param in networks.named_parameters() if param.requires_grad}
    for param in players.values():
        param.grad = torch.zeros_like(param)
    terms = update.loss(networks, batch)
    terms["loss"].backward()  # not autograd.grad, whose gradients may have strides that no optimiser expects
    optimizer = objective.optimizer(name, players.values())
    optimizer.load_state_dict(deepcopy(training.optimizers[name].state_dict()))
    optimizer.step()
    return Side(terms, {name: p.grad for name, p in players.items()}, {name: p.detach() for name, p in players.items()})


def _errors(trained: Terms, library: Side, plain: Side) -> Errors:
    # The parts of a loss may cancel: errors are relative to their size, not to that of their sum.
    parts = [plain.terms["size"]] if "size" in plain.terms else plain.terms.values()
    size, loss = max(sum(part.abs().item() for part in parts), TINY), plain.terms["loss"]
    return Errors(
        (library.terms["loss"] - loss).abs().item() / size,
        _difference(library.gradients, plain.gradients),
        _difference(library.weights, plain.weights),
        (trained["loss"] - loss).abs().item() / size,
    )


def _difference(library: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    # One scale for all: the exact gradient of the last bias may be 0, and its rounding is not an error.
    ours, theirs = (parameters_to_vector(each.values()) for each in (library, plain))
    return ((ours - theirs).abs().max() / theirs.abs().max().clamp(min=TINY)).item()


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
