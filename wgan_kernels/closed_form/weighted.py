"""Layers that are linear in what comes in and in their weight."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .steps import Grads, Kept, Step, Tangent

aten = torch.ops.aten


class Weighted(Step):
    """A bias and a weight. Slots keep h: only curvature further up asks for it."""

    fresh = True
    channels: int  # the dimension that the bias belongs to

    def __init__(self, source: int, h: Callable[[], Tensor], weight: Tensor, bias: Tensor | None, out: Tensor) -> None:
        self.sources, self.h = (source,), h
        self.weight, self.bias = weight, bias
        self.cast_weight = Kept(weight.detach().to(out.dtype))  # autocast may have computed in another dtype
        self.delta: Tensor | None = None

    def params(self) -> Sequence[Tensor]:
        return [p for p in (self.weight, self.bias) if p is not None and p.requires_grad]

    def adjoint(self, delta: Tensor) -> Sequence[Tensor]:
        self.delta = delta if self.weight.requires_grad else None
        return (self.transposed(delta),)

    def tangent(self, tangents: Sequence[Tensor], needs_out: bool) -> Tangent:
        t = tangents[0].to(self.cast_weight.get().dtype)
        grads = []
        if self.delta is not None:
            grads.append((self.weight, self.weight_grad(self.delta, t)))
            self.delta = None
        return Tangent(self.apply(t) if needs_out else None, grads)

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[Sequence[Tensor | None], Grads]:
        grads = []
        if self.weight.requires_grad:
            grads.append((self.weight, self.weight_grad(lam, self.h().to(lam.dtype))))
        if self.bias is not None and self.bias.requires_grad:
            grads.append((self.bias, lam.sum([d for d in range(lam.dim()) if d != self.channels % lam.dim()])))
        return (self.transposed(lam) if needs_sources else None,), grads

    def zero_grads(self) -> Grads:
        needed = self.bias is not None and self.bias.requires_grad
        return [(self.bias, torch.zeros_like(self.bias, memory_format=torch.contiguous_format))] if needed else []

    def apply(self, t: Tensor) -> Tensor:
        raise NotImplementedError

    def transposed(self, delta: Tensor) -> Tensor:
        raise NotImplementedError

    def weight_grad(self, delta: Tensor, t: Tensor) -> Tensor:
        raise NotImplementedError


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
        stride, padding, dilation, transposed, _, groups = settings
        # What a stride passed over at the end comes back as padding.
        sizes = zip(like.shape[2:], out.shape[2:], weight.shape[2:], stride, padding, dilation)
        rest = [size - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for size, n, k, s, p, d in sizes]
        self.transposed_settings = (
            stride,
            padding,
            dilation,
            not transposed,
            [0] * len(rest) if transposed else rest,
            groups,
        )
        image = like.dim() == 4 and like.is_contiguous() and like.device.type == "cpu" and not transposed
        # oneDNN's input gradient is three to six times slower than a matrix product where there are few channels.
        self.folds = image and groups == 1 and self.shape[1] <= 4 and out.dtype in (torch.float32, torch.float64)

    def apply(self, t: Tensor) -> Tensor:
        return aten.convolution(t, self.cast_weight.get(), None, *self.settings)

    def transposed(self, delta: Tensor) -> Tensor:
        if self.folds:
            return self._folded(delta)
        return aten.convolution(delta, self.cast_weight.get(), None, *self.transposed_settings)

    def _folded(self, delta: Tensor) -> Tensor:
        weight, (stride, padding, dilation, *_) = self.cast_weight.get(), self.settings
        columns_of_one, grad = weight.flatten(1).t(), delta.new_empty(self.shape)
        # A few samples at a time: the columns of all may be larger than everything that we keep.
        count = max(1, delta[:, :, :1, :1].numel() // (4 * columns_of_one.shape[0]))
        for some, part in zip(delta.flatten(2).split(count), grad.split(count)):
            aten.col2im.out(
                columns_of_one @ some, self.shape[2:], weight.shape[2:], dilation, padding, stride, out=part
            )
        return grad

    def weight_grad(self, delta: Tensor, t: Tensor) -> Tensor:
        mask = (False, True, False)
        return aten.convolution_backward(delta, t, self.cast_weight.get(), None, *self.settings, mask)[1]
