"""The steps of a run, checked against plain PyTorch while they are made.

Both sides run in float64 on the same weights, draws and states of the optimiser. In float32 two correct programs may
fall on different sides of an activation's kink and differ by 1e-2 in a gradient, so that no tolerance could both pass
these and catch a formula that is a little wrong. In float64 the rounding of a batch's sums stays far below 1e-9 of the
largest gradient, and the chance that it crosses a kink is negligible. The training step itself, in float32, is held to
what float32 allows: its loss, not its gradients, and loosely, to one sample's share of it, so that one sample on the
other side of a kink does not stop a run; with autocast it is not held to anything.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor, nn

from .loop import Training
from .objectives.base import Batch, Objective, Terms, Update

TOLERANCE = 1e-9


def float32_tolerance(batch_size: int) -> float:
    return 1 / batch_size


class VerificationError(Exception):
    """The library and plain PyTorch disagree; the message is the report."""


@dataclass
class Errors:
    """Relative errors."""

    loss: float = 0.0
    gradient: float = 0.0
    weights: float = 0.0  # after the optimiser's step
    float32_loss: float = 0.0


class Verifier:
    """Checks every `interval`-th step, none for 0, and keeps count."""

    def __init__(self, interval: int, plain: Objective) -> None:
        self.interval = interval
        self.checks = 0
        self.worst = Errors()
        self._plain = {update.name: update for update in plain.updates()}
        self._plain_objective = plain

    def due(self, step: int) -> Verifier | None:
        """Itself when this step is to be checked."""
        return self if self.interval and step % self.interval == 0 else None

    def __call__(self, update: Update, training: Training, batch: Batch, terms: Terms) -> None:
        """Compares an update of the objective with the plain one; raises VerificationError beyond tolerance.

        Args:
            training: as it is before the update; left so.
            terms: what the objective gave for the batch in the precision of the run.
        """
        exact = Batch(*[None if each is None else each.double() for each in batch])
        library = Side(training.objective, update, training, exact)
        plain = Side(self._plain_objective, self._plain[update.name], training, exact)
        if not plain.terms["loss"].isfinite():
            return  # diverged, whoever computes it
        found = _errors(terms, library, plain)
        rows = next(len(each) for each in (batch.real, batch.latent) if each is not None)
        float32 = math.inf if training.config.amp else float32_tolerance(rows)
        limits = Errors(TOLERANCE, TOLERANCE, TOLERANCE, float32)
        # Written so that NaN does not pass.
        if not all(getattr(found, each.name) <= getattr(limits, each.name) for each in fields(Errors)):
            raise VerificationError(_report(f"step {training.step_count + 1}, {update.name}", terms, library, plain,
                                            found, limits))  # fmt: skip
        self.checks += 1
        for name, value in vars(found).items():
            setattr(self.worst, name, max(value, getattr(self.worst, name)))


class Side:
    """What one objective gives in float64, on copies: terms, gradients, and the weights that they lead to."""

    def __init__(self, objective: Objective, update: Update, training: Training, batch: Batch) -> None:
        networks: nn.ModuleDict = copy.deepcopy(training.networks).double()
        players = {name: p for name, p in networks.named_parameters() if name.partition(".")[0] in update.players}
        params = list(players.values())
        self.terms = update.loss(networks, batch)
        networks.zero_grad()
        self.terms["loss"].backward()  # not autograd.grad, whose gradients may have strides that no optimiser expects
        for param in params:
            param.grad = torch.zeros_like(param) if param.grad is None else param.grad
        self.gradients: dict[str, Tensor] = {name: param.grad for name, param in players.items()}
        optimizer = objective.optimizer(update.name, params)
        optimizer.load_state_dict(copy.deepcopy(training.optimizers[update.name].state_dict()))
        optimizer.step()
        self.weights: dict[str, Tensor] = {name: param.detach() for name, param in players.items()}


def _errors(trained: Terms, library: Side, plain: Side) -> Errors:
    size = _size(plain.terms)
    expected = plain.terms["loss"].item()
    return Errors(
        loss=abs(library.terms["loss"].item() - expected) / size,
        gradient=_difference(library.gradients, plain.gradients),
        weights=_difference(library.weights, plain.weights),
        float32_loss=abs(trained["loss"].item() - expected) / size,
    )


def _size(terms: Terms) -> float:
    """The parts of a loss may cancel: errors are relative to their size, not to that of their sum."""
    parts = [terms["size"]] if "size" in terms else terms.values()
    return max(sum(part.detach().abs().item() for part in parts), torch.finfo(torch.float64).tiny)


def _difference(library: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    # One scale for all: the exact gradient of the last bias may be 0, and its rounding is not an error.
    largest = max(value.abs().max().item() for value in plain.values())
    differences = torch.stack([(library[name] - value).abs().max() for name, value in plain.items()])
    return differences.max().item() / max(largest, torch.finfo(torch.float64).tiny)


def _report(where: str, trained: Terms, library: Side, plain: Side, found: Errors, limits: Errors) -> str:
    def row(label: str, *values: Tensor) -> str:
        return f"{label:34}" + "".join(f"{value.item():16.9g}" for value in values)

    def error(name: str) -> str:
        return f"{getattr(found, name):16.2e}{getattr(limits, name):12.0e}"

    lines = [
        f"{where}: library and plain PyTorch disagree on the same weights and draws",
        f"{'':34}{'library':>16}{'plain PyTorch':>16}{'relative error':>16}{'tolerance':>12}",
        row("loss, float64", library.terms["loss"], plain.terms["loss"]) + error("loss"),
        row("loss, as trained on", trained["loss"], plain.terms["loss"]) + error("float32_loss"),
        *[row(f"{name}, float64", library.terms[name], value) for name, value in plain.terms.items() if name != "loss"],
        f"{'gradients, float64':66}" + error("gradient"),
        *[row(f"  norm for {name}", library.gradients[name].norm(), each.norm())
          for name, each in plain.gradients.items()],
        f"{'weights after the step, float64':66}" + error("weights"),
    ]  # fmt: skip
    return "\n".join(lines)
