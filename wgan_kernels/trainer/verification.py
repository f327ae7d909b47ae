"""The critic's steps, checked against plain PyTorch while they are made.

Both sides run in float64 on the same weights, batch and mixing numbers. In float32 two correct programs may fall on
different sides of an activation's kink and differ by 1e-2 in a gradient, so that no tolerance could both pass these and
catch a formula that is a little wrong. In float64 the rounding of a batch's sums stays far below 1e-9 of the largest
gradient, and the chance that it crosses a kink is negligible. The training step itself, in float32, is held to what
float32 allows: its loss, not its gradients, and loosely, to one sample's share of it, so that one sample on the other
side of a kink does not stop a run.
"""

from __future__ import annotations

import copy
from dataclasses import astuple, dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .objectives.wgan_gp import WGANGP, CriticTerms, PlainWGANGP

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
    float32_loss: float = 0.0


class Verifier:
    """Checks every `interval`-th step, none for 0, and keeps count."""

    def __init__(self, interval: int, objective: WGANGP, plain: PlainWGANGP) -> None:
        self.interval, self.objective, self.plain = interval, objective, plain
        self.checks = 0
        self.worst = Errors()
        self._step = 0

    def due(self, step: int) -> Verifier | None:
        """Itself when this step is to be checked."""
        self._step = step
        return self if self.interval and step % self.interval == 0 else None

    def __call__(self, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor, terms: CriticTerms) -> None:
        """Compares the objective's loss and gradients with the plain ones; raises VerificationError beyond tolerance.

        Args:
            critic: float32, left as it is.
            real, fake: (B, P). mix: (B,).
            terms: what the objective gave for these in float32.
        """
        double = copy.deepcopy(critic).double()
        batch = real.double(), fake.double(), mix.double()
        library, plain = _Side.of(self.objective, double, *batch), _Side.of(self.plain, double, *batch)
        if not plain.terms.loss.isfinite():
            return  # diverged, whoever computes it
        found, limits = _errors(terms, library, plain), Errors(TOLERANCE, TOLERANCE, float32_tolerance(len(real)))
        # Written so that NaN does not pass.
        if not all(error <= limit for error, limit in zip(astuple(found), astuple(limits), strict=True)):
            raise VerificationError(_report(self._step + 1, terms, library, plain, found, limits))
        self.checks += 1
        for name, value in vars(found).items():
            setattr(self.worst, name, max(value, getattr(self.worst, name)))


class _Side(NamedTuple):
    """What one objective gives in float64."""

    terms: CriticTerms
    gradients: dict[str, Tensor]

    @classmethod
    def of(cls, objective: WGANGP, critic: nn.Module, real: Tensor, fake: Tensor, mix: Tensor) -> _Side:
        terms = objective.critic_terms(critic, real, fake, mix)
        parameters = dict(critic.named_parameters())
        return cls(terms, dict(zip(parameters, torch.autograd.grad(terms.loss, list(parameters.values())))))


def _errors(float32: CriticTerms, library: _Side, plain: _Side) -> Errors:
    # The parts of the loss may cancel: errors are relative to their size, not to that of their sum.
    size = (plain.terms.wasserstein.abs() + plain.terms.penalty).item()
    expected = plain.terms.loss.item()
    # One scale for all gradients: the exact one of the last bias is 0, and its rounding is not an error.
    largest = max(gradient.abs().max().item() for gradient in plain.gradients.values())
    differences = torch.cat([(library.gradients[name] - plain.gradients[name]).flatten() for name in plain.gradients])
    return Errors(
        loss=abs(library.terms.loss.item() - expected) / size,
        gradient=differences.abs().max().item() / largest,
        float32_loss=abs(float32.loss.item() - expected) / size,
    )


def _report(step: int, float32: CriticTerms, library: _Side, plain: _Side, found: Errors, limits: Errors) -> str:
    def row(label: str, *values: Tensor) -> str:
        return f"{label:24}" + "".join(f"{value.item():16.9g}" for value in values)

    def error(name: str) -> str:
        return f"{getattr(found, name):16.2e}{getattr(limits, name):12.0e}"

    ours, expected = library.terms, plain.terms
    lines = [
        f"step {step}: library and plain PyTorch disagree on the same weights, batch and mixing numbers",
        f"{'':24}{'library':>16}{'plain PyTorch':>16}{'relative error':>16}{'tolerance':>12}",
        row("loss, float64", ours.loss, expected.loss) + error("loss"),
        row("penalty, float64", ours.penalty, expected.penalty),
        row("loss, float32", float32.loss, expected.loss) + error("float32_loss"),
        f"{'gradients, float64':56}" + error("gradient"),
    ]
    for name, gradient in plain.gradients.items():
        lines.append(row(f"  norm for {name}", library.gradients[name].norm(), gradient.norm()))
    return "\n".join(lines)
