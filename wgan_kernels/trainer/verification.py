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
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .config import Config
from .loop import Training
from .objectives import make_objective
from .objectives.base import Batch, Objective, Terms, Update

TOLERANCE = 1e-9
TINY = torch.finfo(torch.float64).tiny


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
    """Checks every step that config.verify divides, none for 0, and keeps count."""

    def __init__(self, config: Config) -> None:
        self.interval, self.checks, self.worst = config.verify, 0, Errors()
        self._plain = make_objective(config, plain=True)

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
        library, plain = (Side(each, update.name, training, exact) for each in (training.objective, self._plain))
        if not plain.loss.isfinite():
            return  # diverged, whoever computes it
        rows = next(len(each) for each in (batch.real, batch.latent) if each is not None)
        float32 = math.inf if training.config.amp else float32_tolerance(rows)
        found, limits = _errors(terms, library, plain), Errors(TOLERANCE, TOLERANCE, TOLERANCE, float32)
        # Written so that NaN does not pass.
        if not all(error <= getattr(limits, name) for name, error in vars(found).items()):
            where = f"step {training.step_count + 1}, {update.name}"
            raise VerificationError(_report(where, terms["loss"], library, plain, found, limits))
        self.checks += 1
        self.worst = Errors(*[max(pair) for pair in zip(vars(found).values(), vars(self.worst).values(), strict=True)])


class Side:
    """What one objective gives in float64, on copies: terms, gradients, and the weights that they lead to."""

    def __init__(self, objective: Objective, name: str, training: Training, batch: Batch) -> None:
        (update,) = [each for each in objective.updates() if each.name == name]
        networks: nn.ModuleDict = copy.deepcopy(training.networks).double()
        players = {name: p for name, p in networks.named_parameters() if name.partition(".")[0] in update.players}
        networks.zero_grad()
        self.terms = update.loss(networks, batch)
        self.loss = self.terms["loss"]
        self.loss.backward()  # not autograd.grad, whose gradients may have strides that no optimiser expects
        for param in players.values():
            param.grad = torch.zeros_like(param) if param.grad is None else param.grad
        self.gradients: dict[str, Tensor] = {name: param.grad for name, param in players.items()}
        optimizer = objective.optimizer(name, players.values())
        optimizer.load_state_dict(copy.deepcopy(training.optimizers[name].state_dict()))
        optimizer.step()
        self.weights: dict[str, Tensor] = {name: param.detach() for name, param in players.items()}


def _errors(trained: Terms, library: Side, plain: Side) -> Errors:
    # The parts of a loss may cancel: errors are relative to their size, not to that of their sum.
    parts = [plain.terms["size"]] if "size" in plain.terms else plain.terms.values()
    size = max(sum(part.abs().item() for part in parts), TINY)
    return Errors(
        (library.loss - plain.loss).abs().item() / size,
        _difference(library.gradients, plain.gradients),
        _difference(library.weights, plain.weights),
        (trained["loss"] - plain.loss).abs().item() / size,
    )


def _difference(library: dict[str, Tensor], plain: dict[str, Tensor]) -> float:
    # One scale for all: the exact gradient of the last bias may be 0, and its rounding is not an error.
    largest = max(value.abs().max().item() for value in plain.values())
    differences = torch.stack([(library[name] - value).abs().max() for name, value in plain.items()])
    return differences.max().item() / max(largest, TINY)


def _report(where: str, trained: Tensor, library: Side, plain: Side, found: Errors, limits: Errors) -> str:
    lines = [f"{where}: library and plain PyTorch disagree on the same weights and draws"]
    lines += [f"  relative error {error:9.2e}, tolerance {getattr(limits, name):.0e}: {name}"
              for name, error in vars(found).items()]  # fmt: skip
    pairs = {"loss as trained on": (trained, plain.loss)}
    pairs |= {f"{name}, float64": (library.terms[name], value) for name, value in plain.terms.items()}
    pairs |= {f"gradient of {name}, norm": (library.gradients[name].norm(), value.norm())
              for name, value in plain.gradients.items()}  # fmt: skip
    lines.append(f"  {'':40}{'library':>16}{'plain PyTorch':>16}")
    return "\n".join(lines + [f"  {name:40}{one.item():16.9g}{two.item():16.9g}" for name, (one, two) in pairs.items()])
