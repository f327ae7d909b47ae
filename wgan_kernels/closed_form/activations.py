"""Functions of each number by itself: out = phi(h), or noise * h."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from ..ops.bias_leaky_relu import run_pass
from .steps import Grads, Kept, Step, Tangent

aten = torch.ops.aten


class Elementwise(Step):
    """A step whose J is a factor for each number, which is its own transpose."""

    fresh = True
    defines_zero = True

    def apply(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        return (self.apply(delta),)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        return Tangent(self.apply(tangents[0]) if needs_out else None, [])

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        return (self.apply(lam) if needs_sources else None,), []


class Rectifier(Elementwise):
    """ReLU (slope 0) and LeakyReLU. `kept` is h, or the result where it was computed in place: the signs agree."""

    def __init__(self, source: int, kept: Tensor, slope: float) -> None:
        self.sources, self.kept, self.slope = (source,), Kept(kept), slope

    def value(self) -> Tensor:
        """The result again, from h."""
        h = self.kept.get()
        return functional.leaky_relu(h, self.slope) if self.slope else functional.relu(h)

    def apply(self, t: Tensor) -> Tensor:
        h = self.kept.get()
        if self.owns:  # and memory that is written for the first time is slower
            if self.slope == 0:
                return aten.threshold_backward.grad_input(t, h, 0, grad_input=t)
            return aten.leaky_relu_backward.grad_input(t, h, self.slope, False, grad_input=t)
        return aten.leaky_relu_backward(t, h, self.slope, False) if self.slope else aten.threshold_backward(t, h, 0)


class BiasRectifier(Elementwise):
    """clamp(gain * leaky_relu(h + bias)); y: the result, which tells all; bias: (C,) or None, for h of (B, C, ...)."""

    defines_zero = False  # its second derivative by h is none, rather than zeros

    def __init__(self, source: int, y: Tensor, bias: Tensor | None, settings: Sequence[Any]) -> None:
        self.sources, self.y, self.bias, self.settings = (source,), Kept(y), bias, settings

    def params(self) -> Sequence[Tensor]:
        return [self.bias] if self.bias is not None and self.bias.requires_grad else []

    def apply(self, t: Tensor) -> Tensor:
        y = self.y.get()
        return run_pass("bias_leaky_relu_double_backward", y, t, None, y, *self.settings)

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        y, params = self.y.get(), self.params()
        by_h, by_bias = run_pass("bias_leaky_relu_backward", y, lam, y, *self.settings, len(params) > 0)
        return (by_h,), [(param, by_bias) for param in params]

    def zero_grads(self) -> Grads:
        return [(param, torch.zeros_like(param)) for param in self.params()]


class Dropout(Elementwise):
    """noise * h; noise: of the shape of h, 0 where numbers are dropped."""

    defines_zero = False

    def __init__(self, source: int, noise: Tensor) -> None:
        self.sources, self.noise = (source,), noise

    def apply(self, t: Tensor) -> Tensor:
        return t.mul_(self.noise) if self.owns else t * self.noise


class PReLU(Elementwise):
    """h where it is positive, else weight * h; weight: (1,) or (C,), for h of (B, C, ...)."""

    def __init__(self, source: int, h: Tensor, weight: Tensor) -> None:
        self.sources, self.h, self.weight = (source,), Kept(h), weight
        self.cast_weight = Kept(weight.detach().to(h.dtype))
        self.delta: Tensor | None = None

    def params(self) -> Sequence[Tensor]:
        return [self.weight] if self.weight.requires_grad else []

    def apply(self, t: Tensor) -> Tensor:
        return self._backward(t)[0]

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        self.delta = delta if self.weight.requires_grad else None
        return super().adjoint(delta)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        t, grads = tangents[0], []
        if self.delta is not None:
            grads = self._weight_grad((self.delta * t).masked_fill_(self.h.get() >= 0, 0))
            self.delta = None
        # At 0 torch's backward takes the slope and its double backward the 1.
        out = torch.where(self.h.get() >= 0, t, t * self._spread_weight()) if needs_out else None
        return Tangent(out, grads)

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        by_h, by_weight = self._backward(lam)
        return (by_h,), self._weight_grad(by_weight) if self.weight.requires_grad else []

    def zero_grads(self) -> Grads:
        return [(param, torch.zeros_like(param)) for param in self.params()]

    def _backward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        return aten._prelu_kernel_backward(t, self.h.get(), self._spread_weight())

    def _spread_weight(self) -> Tensor:
        return self.cast_weight.get().view(-1, *[1] * (self.h.get().dim() - 2))

    def _weight_grad(self, each: Tensor) -> Grads:
        if self.weight.numel() == 1:
            return [(self.weight, each.sum().view(1))]
        return [(self.weight, each.sum([d for d in range(each.dim()) if d != 1]))]


class Smooth(NamedTuple):
    """A smooth phi.

    Attributes:
        first: (t, kept, *settings) -> phi'(h) t.
        curvature: (kept, delta, t, phi'(h) t, *settings) -> phi''(h) delta t.
        keeps_out: whether `kept` is phi(h), else h.
    """

    first: Callable[..., Tensor]
    curvature: Callable[..., Tensor]
    keeps_out: bool = False


class SmoothActivation(Elementwise):
    def __init__(self, source: int, kept: Tensor, phi: Smooth, settings: Sequence[Any]) -> None:
        self.sources, self.kept, self.phi, self.settings = (source,), Kept(kept), phi, settings
        self.delta: Tensor | None = None

    def apply(self, t: Tensor) -> Tensor:
        return self.phi.first(t, self.kept.get(), *self.settings)

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        self.delta = delta
        return super().adjoint(delta)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        out = self.apply(tangents[0])
        curvature = self.phi.curvature(self.kept.get(), self.delta, tangents[0], out, *self.settings)
        self.delta = None
        return Tangent(out, [], (curvature,))


def _tanh_curvature(y: Tensor, delta: Tensor, t: Tensor, out: Tensor) -> Tensor:
    return (delta * out).mul_(y).mul_(-2)


def _sigmoid_curvature(y: Tensor, delta: Tensor, t: Tensor, out: Tensor) -> Tensor:
    return torch.rsub(y, 1, alpha=2).mul_(delta).mul_(out)


def _softplus_curvature(h: Tensor, delta: Tensor, t: Tensor, out: Tensor, beta: float, threshold: float) -> Tensor:
    rest = (h * -beta).sigmoid_().mul_(beta).mul_(delta).mul_(out)
    return rest.masked_fill_(h * beta > threshold, 0)


def _silu_curvature(h: Tensor, delta: Tensor, t: Tensor, out: Tensor) -> Tensor:
    s = torch.sigmoid(h)
    second = torch.rsub(s, 1, alpha=2).mul_(h).add_(2).mul_(s)
    return second.mul_(s.neg_().add_(1)).mul_(delta).mul_(t)


def _gelu_curvature(h: Tensor, delta: Tensor, t: Tensor, out: Tensor) -> Tensor:
    square = h * h
    density = (square * -0.5).exp_().mul_(1 / math.sqrt(2 * math.pi))
    return square.neg_().add_(2).mul_(density).mul_(delta).mul_(t)


def _elu_curvature(h: Tensor, delta: Tensor, t: Tensor, out: Tensor, alpha: float) -> Tensor:
    return (delta * out).masked_fill_(h >= 0, 0)


TANH = Smooth(aten.tanh_backward, _tanh_curvature, keeps_out=True)
SIGMOID = Smooth(aten.sigmoid_backward, _sigmoid_curvature, keeps_out=True)
SOFTPLUS = Smooth(aten.softplus_backward, _softplus_curvature)
SILU = Smooth(aten.silu_backward, _silu_curvature)
GELU = Smooth(aten.gelu_backward, _gelu_curvature)
ELU = Smooth(lambda t, h, alpha: aten.elu_backward(t, alpha, 1, 1, False, h), _elu_curvature)
