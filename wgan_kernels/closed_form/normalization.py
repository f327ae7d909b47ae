"""Layer, group and instance normalisation: groups of n numbers, less their mean, over their deviation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .steps import Grads, Kept, Step, Tangent

aten = torch.ops.aten


class Normalization(Step):
    """out = weight * xhat + bias, with xhat = r (h - mean), r = 1 / sqrt(variance + eps) over each group.

    J = weight * S with the symmetric S t = r (t - mean(t) - xhat mean(t xhat)). With a = weight * delta,
        grad_h <a, S t> = -r/n (xhat <a, S t> + <t, xhat> S a + <a, xhat> S t).
    """

    def __init__(self, source: int, h: Tensor, weight: Tensor | None, bias: Tensor | None) -> None:
        self.sources, self.h, self.weight, self.bias = (source,), Kept(h), weight, bias
        self.cast_weight = None if weight is None else Kept(weight.detach())
        self.delta: Tensor | None = None
        self.adjoint_of_delta: Tensor | None = None
        self.mean: Tensor
        self.r: Tensor

    def params(self) -> Sequence[Tensor]:
        return [p for p in (self.weight, self.bias) if p is not None and p.requires_grad]

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        self.delta = delta = delta.contiguous()  # as the kernels take for granted
        self.adjoint_of_delta, *_ = self.backward(delta, self._weight(), (True, False, False))
        return (self.adjoint_of_delta,)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        t, delta, weight = tangents[0].contiguous(), self.delta, self._weight()
        along, *_ = self.backward(t, None, (True, False, False))  # S t
        grads, out, a = [], along, delta
        if self.weight is not None:
            scale = self.spread(weight)
            if self.weight.requires_grad:
                grads.append((self.weight, self.by_weight(delta * along)))
            out, a = along * scale, delta * scale
        curvature = self._curvature(t, a, along)
        self.delta = self.adjoint_of_delta = None
        return Tangent(out, grads, (curvature,))

    def _curvature(self, t: Tensor, a: Tensor, along: Tensor) -> Tensor:
        """a: weight * delta; along: S t. All of the shape of h, contiguous."""
        t, a, along, below = (x.reshape(*self.r.shape[:-1], -1) for x in (t, a, along, self.adjoint_of_delta))
        xhat = (self.h.get().reshape(t.shape) - self.mean).mul_(self.r)
        factor = self.r / -t.shape[-1]
        by_xhat, by_below, by_along = (factor * _dot(*pair) for pair in ((a, along), (t, xhat), (a, xhat)))
        sum_ = xhat.mul_(by_xhat).addcmul_(below, by_below).addcmul_(along, by_along)
        return sum_.view(self.h.get().shape)

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        needs = [p is not None and p.requires_grad for p in (self.weight, self.bias)]
        by_h, *by_params = self.backward(lam.contiguous(), self._weight(), (needs_sources, *needs))
        return (by_h if needs_sources else None,), [
            (p, grad) for p, grad, needed in zip((self.weight, self.bias), by_params, needs) if needed
        ]

    def _weight(self) -> Tensor | None:
        return None if self.cast_weight is None else self.cast_weight.get()

    def backward(
        self, delta: Tensor, weight: Tensor | None, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        """S (weight * delta), and the gradients of <delta, out> by weight and bias."""
        raise NotImplementedError

    def spread(self, weight: Tensor) -> Tensor:
        """The weight in a shape that multiplies h."""
        raise NotImplementedError

    def by_weight(self, each: Tensor) -> Tensor:
        """The sum over what a weight multiplies, of the weight's shape."""
        raise NotImplementedError


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """Over the last dimension, which is kept."""
    return torch.linalg.vecdot(a, b).unsqueeze(-1)


class LayerNorm(Normalization):
    """Groups are the last dimensions; weight and bias are of their shape."""

    def __init__(
        self, source: int, h: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> None:
        super().__init__(source, h, weight, bias)
        self.normalized = list(shape)
        self.out, mean, r = aten.native_layer_norm(h, self.normalized, self._weight(), _detached(bias), eps)
        self.mean, self.r = mean.view(-1, 1), r.view(-1, 1)
        self.statistics = mean, r

    def backward(
        self, delta: Tensor, weight: Tensor | None, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        bias = _detached(self.bias) if mask[2] else None
        h, (mean, r) = self.h.get(), self.statistics
        return aten.native_layer_norm_backward(delta, h, self.normalized, mean, r, weight, bias, mask)

    def spread(self, weight: Tensor) -> Tensor:
        return weight

    def by_weight(self, each: Tensor) -> Tensor:
        return each.sum_to_size(self.weight.shape)


class GroupNorm(Normalization):
    """Groups are neighbouring channels of one sample; h: (B, C, ...), weight and bias: (C,)."""

    def __init__(
        self, source: int, h: Tensor, groups: int, weight: Tensor | None, bias: Tensor | None, eps: float
    ) -> None:
        super().__init__(source, h, weight, bias)
        self.sizes = h.shape[0], h.shape[1], h[0, 0].numel(), groups
        self.out, mean, r = aten.native_group_norm(h, self._weight(), _detached(bias), *self.sizes, eps)
        self.mean, self.r = mean.unsqueeze(-1), r.unsqueeze(-1)

    def backward(
        self, delta: Tensor, weight: Tensor | None, mask: tuple[bool, bool, bool]
    ) -> tuple[Tensor | None, ...]:
        mean, r = self.mean.squeeze(-1), self.r.squeeze(-1)
        return aten.native_group_norm_backward(delta, self.h.get(), mean, r, weight, *self.sizes, mask)

    def spread(self, weight: Tensor) -> Tensor:
        return weight.view(-1, *[1] * (self.h.get().dim() - 2))

    def by_weight(self, each: Tensor) -> Tensor:
        return each.sum([d for d in range(each.dim()) if d != 1])


def _detached(param: Tensor | None) -> Tensor | None:
    return None if param is None else param.detach()
