"""What a critic's forward pass is made of: steps, each with its adjoint, its tangent and their derivatives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

Grads = list[tuple[Tensor, Tensor]]  # parameters, with something to add to their gradients


class Changed(Exception):
    """Something that the sweeps need was written into after the critic's forward pass had used it."""


class Kept:
    """A value of the forward pass."""

    def __init__(self, value: Tensor) -> None:
        self._value, self._version = value, value._version

    def get(self) -> Tensor:
        if self._value._version != self._version:
            raise Changed
        return self._value


class Tangent(NamedTuple):
    """What a step makes of tangents t, with delta as its adjoint took it.

    Attributes:
        out: J t, or None where it is not needed, or zero.
        grads: of <delta, J t> by the parameters.
        curvature: its gradients by each source; None for zero.
    """

    out: Tensor | None
    grads: Grads
    curvature: Sequence[Tensor | None] = (None,)


class Step:
    """out = f(h; theta), from slots, values that depend on the samples, to a slot; J = df/dh.

    For each pass `adjoint` is called first, if at all, then `tangent` once, then perhaps `pull`.

    Attributes:
        sources: the slots of h.
        owns: set for each call: whether its first tensor may be written into.
        fresh: whether what comes out (but for gradients and curvature) is memory that the step does not keep.
        defines_zero: whether torch writes out a curvature of zero, rather than nothing: it decides who gets a gradient
            of zeros and who gets none.
    """

    sources: tuple[int, ...]
    owns = False
    fresh = False
    defines_zero = False

    def adjoint(self, delta: Tensor) -> Sequence[Tensor | None]:
        """J^T delta for each source. The step keeps of delta what its tangent needs."""
        raise NotImplementedError

    def tangent(self, tangents: Sequence[Tensor | None], needs_out: bool) -> Tangent:
        raise NotImplementedError

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        """J^T lam for each source, and the gradients of <lam, f> by the parameters."""
        raise NotImplementedError

    def params(self) -> Sequence[Tensor]:
        """Those that require grad."""
        return []

    def zero_grads(self) -> Grads:
        """What `pull` gives for zero, where nothing else gives these parameters a gradient."""
        return []


class Segment(Step):
    """Whatever autograd recorded between slots: differentiated by autograd, twice, this piece alone."""

    def __init__(
        self,
        sources: Sequence[int],
        edges: Sequence[tuple[Any, int]],
        leaves: Sequence[Tensor],
        out: tuple[Any, int],
    ) -> None:
        self.sources, self.leaves = tuple(sources), leaves
        self.edges, self.out = [GradientEdge(*edge) for edge in edges], GradientEdge(*out)

    def params(self) -> Sequence[Tensor]:
        return self.leaves

    def adjoint(self, delta: Tensor) -> Sequence[Tensor | None]:
        # As a function of delta: the tangent is its derivative.
        with torch.enable_grad():
            self.delta = delta.detach().requires_grad_()
            self.adjoints = self._grad([self.out], self.edges, [self.delta], create_graph=True)
        return [None if grad is None else grad.detach() for grad in self.adjoints]

    def tangent(self, tangents: Sequence[Tensor | None], needs_out: bool) -> Tangent:
        pairs = [
            (grad, t.to(grad.dtype))
            for grad, t in zip(self.adjoints, tangents)
            if grad is not None and t is not None and grad.requires_grad
        ]
        outputs, along = [grad for grad, _ in pairs], [t for _, t in pairs]
        out, *rest = self._grad(outputs, [self.delta, *self.edges, *self.leaves], along)
        del self.delta, self.adjoints
        return Tangent(out, self._of_leaves(rest), rest[: len(self.edges)])

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        grads = self._grad([self.out], [*self.edges, *self.leaves], [lam])
        return grads[: len(self.edges)], self._of_leaves(grads)

    def zero_grads(self) -> Grads:
        return [(leaf, torch.zeros_like(leaf)) for leaf in self.leaves]

    def _of_leaves(self, grads: Sequence[Tensor | None]) -> Grads:
        return [(leaf, g) for leaf, g in zip(self.leaves, grads[len(self.edges) :]) if g is not None]

    @staticmethod
    def _grad(outputs: Sequence, inputs: Sequence, along: Sequence, create_graph: bool = False) -> Sequence:
        # Parametrizations belong to the graph that the caller's own backward walks: it must stay.
        return torch.autograd.grad(
            outputs, inputs, along, create_graph=create_graph, retain_graph=True, allow_unused=True
        )
