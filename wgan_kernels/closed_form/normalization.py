"""Layer, group and instance normalisation: groups of n numbers, less their mean, over their deviation."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..ops.group_norm import run_pass
from .steps import Grads, Kept, Step, Tangent


class Normalization(Step):
    """out = weight * xhat + bias, with xhat = r (h - mean), r = 1 / sqrt(variance + eps) over each group.

    <delta, J t> is what the operator's gradient by h, of delta, gives along t: its own derivative, which is one sweep,
    is J t by delta, the curvature by h, and the weight's gradient.
    """

    fresh = True

    def __init__(
        self,
        source: int,
        h: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        groups: int,
        layer_dims: int,
        eps: float,
    ) -> None:
        self.sources, self.h, self.weight, self.bias = (source,), Kept(h), weight, bias
        self.cast_weight = None if weight is None else Kept(weight.detach())
        self.settings = groups, layer_dims
        args = h, self._weight(), _detached(bias), groups, layer_dims, eps
        self.out, *self.statistics = run_pass("group_norm", h, *args)
        self.delta: Tensor | None = None

    def params(self) -> Sequence[Tensor]:
        return [p for p in (self.weight, self.bias) if p is not None and p.requires_grad]

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        self.delta = delta
        return (self._backward(delta, False)[0],)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        h, needed = self.h.get(), self.weight is not None and self.weight.requires_grad
        args = tangents[0], None, None, self.delta, h, self._weight(), *self.statistics, *self.settings, True, needed
        out, curvature, by_weight = run_pass("group_norm_double_backward", h, *args)
        self.delta = None
        return Tangent(out, [(self.weight, by_weight)] if needed else [], (curvature,))

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        by_h, *by_params = self._backward(lam, len(self.params()) > 0)
        grads = [(p, g) for p, g in zip((self.weight, self.bias), by_params) if p is not None and p.requires_grad]
        return (by_h if needs_sources else None,), grads

    def _backward(self, delta: Tensor, needs_params: bool) -> tuple[Tensor, ...]:
        h = self.h.get()
        args = delta, h, self._weight(), _detached(self.bias), *self.statistics, *self.settings, needs_params
        return run_pass("group_norm_backward", h, *args)

    def _weight(self) -> Tensor | None:
        return None if self.cast_weight is None else self.cast_weight.get()


def _detached(param: Tensor | None) -> Tensor | None:
    return None if param is None else param.detach()
