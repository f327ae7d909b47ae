"""What a critic's forward pass is made of: steps, each with its adjoint, its tangent and their derivatives.

A step maps slots, values that depend on the samples, to a slot: out = f(h; theta), J = df/dh. The sweeps need
    adjoint   J^T delta
    tangent   J t, with the gradients of <delta, J t> by theta and, the curvature, by h
    pull      J^T lambda, with the gradient of <lambda, f> by theta
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn import functional

aten = torch.ops.aten

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
    out: Tensor | None
    grads: Grads
    curvature: Sequence[Tensor | None]  # one for each source, None for zero


class Step(Protocol):
    sources: tuple[int, ...]
    # Whether the curvature is zero as torch would write it out, rather than nothing: it decides who gets a gradient of
    # zeros and who gets none.
    defines_zero: bool

    def adjoint(self, delta: Tensor) -> Sequence[Tensor | None]: ...

    def tangent(self, delta: Tensor, tangents: Sequence[Tensor | None], needs_out: bool) -> Tangent: ...

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]: ...

    def zero_grads(self) -> Grads: ...

    def params(self) -> Sequence[Tensor]: ...


class Weighted:
    """A layer that is linear in h and in its weight. Slots keep h: only curvature further up asks for it."""

    defines_zero = False

    def __init__(self, source: int, h: Callable[[], Tensor], weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        self.sources, self.h = (source,), h
        self.weight, self.bias = weight, bias
        self.cast_weight = Kept(weight.detach().to(out.dtype))  # autocast may have computed in another dtype

    def params(self) -> Sequence[Tensor]:
        return [p for p in (self.weight, self.bias) if p is not None and p.requires_grad]

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        return (self.transposed(delta),)

    def tangent(self, delta: Tensor, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        t = tangents[0].to(delta.dtype)
        grads = [(self.weight, self.weight_grad(delta, t))] if self.weight.requires_grad else []
        return Tangent(self.apply(t) if needs_out else None, grads, (None,))

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        grads = []
        if self.weight.requires_grad:
            grads.append((self.weight, self.weight_grad(lam, self.h().to(lam.dtype))))
        if self.bias is not None and self.bias.requires_grad:
            grads.append((self.bias, lam.sum([d for d in range(lam.dim()) if d != self.channels % lam.dim()])))
        return (self.transposed(lam) if needs_sources else None,), grads

    def zero_grads(self) -> Grads:
        """What a lambda of zero gives."""
        needed = self.bias is not None and self.bias.requires_grad
        return [(self.bias, torch.zeros_like(self.bias, memory_format=torch.contiguous_format))] if needed else []


class Linear(Weighted):
    """h W^T + b; h: (B, ..., D), W: (K, D)."""

    channels = -1

    def apply(self, t: Tensor) -> Tensor:
        return t @ self.cast_weight.get().t()

    def transposed(self, delta: Tensor) -> Tensor:
        return delta @ self.cast_weight.get()

    def weight_grad(self, delta: Tensor, t: Tensor) -> Tensor:
        return delta.flatten(0, -2).t() @ t.flatten(0, -2)


class Convolution(Weighted):
    """A convolution, transposed or not, of one, two or three dimensions; settings as aten.convolution takes them."""

    channels = 1

    def __init__(
        self,
        source: int,
        h: Callable[[], Tensor],
        weight: Tensor,
        bias: Tensor | None,
        out: Tensor,
        like: Tensor,
        settings: tuple[object, ...],
    ) -> None:
        super().__init__(source, h, weight, bias, out)
        self.settings, self.shape = settings, like.shape
        self.contiguous = like.is_contiguous()

    def apply(self, t: Tensor) -> Tensor:
        return aten.convolution(t, self.cast_weight.get(), None, *self.settings)

    def transposed(self, delta: Tensor) -> Tensor:
        # Of the input only shape and layout matter here; a layout needs memory, though nobody writes to it.
        if self.contiguous:
            like = delta.new_empty(()).expand(self.shape)
        else:
            like = torch.empty(
                self.shape,
                dtype=delta.dtype,
                device=delta.device,
                memory_format=torch.channels_last if len(self.shape) == 4 else torch.channels_last_3d,
            )
        return self._backward(delta, like, (True, False, False))[0]

    def weight_grad(self, delta: Tensor, t: Tensor) -> Tensor:
        return self._backward(delta, t, (False, True, False))[1]

    def _backward(self, delta: Tensor, h: Tensor, mask: tuple[bool, bool, bool]) -> tuple[Tensor, ...]:
        return aten.convolution_backward(delta, h, self.cast_weight.get(), None, *self.settings, mask)


class Activation:
    """ReLU (slope 0) and LeakyReLU. `kept` is h, or the result where it was computed in place: the signs agree."""

    defines_zero = True

    def __init__(self, source: int, kept: Tensor, slope: float) -> None:
        self.sources, self.kept, self.slope = (source,), Kept(kept), slope

    def value(self) -> Tensor:
        """The result again, from h."""
        h = self.kept.get()
        return functional.leaky_relu(h, self.slope) if self.slope else functional.relu(h)

    def apply(self, t: Tensor) -> Tensor:
        if self.slope == 0:
            return aten.threshold_backward(t, self.kept.get(), 0)
        return aten.leaky_relu_backward(t, self.kept.get(), self.slope, False)

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        return (self.apply(delta),)

    def tangent(self, delta: Tensor, tangents: Sequence[Tensor | None], needs_out: bool) -> Tangent:
        return Tangent(self.apply(tangents[0]) if needs_out else None, [], (None,))

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        return (self.apply(lam) if needs_sources else None,), []

    def zero_grads(self) -> Grads:
        return []

    def params(self) -> Sequence[Tensor]:
        return []


class Segment:
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
        self.defines_zero = False

    def params(self) -> Sequence[Tensor]:
        return self.leaves

    def adjoint(self, delta: Tensor) -> Sequence[Tensor | None]:
        # As a function of delta: the tangent is its derivative.
        with torch.enable_grad():
            self.delta = delta.detach().requires_grad_()
            self.adjoints = self._grad([self.out], self.edges, [self.delta], create_graph=True)
        return [None if grad is None else grad.detach() for grad in self.adjoints]

    def tangent(self, delta: Tensor, tangents: Sequence[Tensor | None], needs_out: bool) -> Tangent:
        pairs = [
            (grad, t.to(grad.dtype))
            for grad, t in zip(self.adjoints, tangents)
            if grad is not None and t is not None and grad.requires_grad
        ]
        outputs, along = [grad for grad, _ in pairs], [t for _, t in pairs]
        out, *rest = self._grad(outputs, [self.delta, *self.edges, *self.leaves], along)
        del self.delta, self.adjoints
        curvature = rest[: len(self.edges)]
        return Tangent(out, self._of_leaves(rest), curvature)

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
