"""Gradients that were computed beside a value enter autograd here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Scaled(torch.autograd.Function):
    """Gradients that know that they depend on the parameters, but not how: asking for more raises."""

    @staticmethod
    def forward(ctx: Any, grad_value: Tensor, grads: Sequence[Tensor], *params: Tensor) -> tuple[Tensor, ...]:
        return _scale(grad_value, grads, *params)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError(
            "the closed form of the gradient penalty gives its first derivative only; "
            "call gradient_penalty(..., route='double_backward') to differentiate it again"
        )


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Tensor, grads: Sequence[Tensor], *params: Tensor) -> Tensor:
        ctx.grads = grads
        ctx.save_for_backward(*params)
        return value.view_as(value)

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        params = ctx.saved_tensors
        # A plain product with grad mode on would pass for a complete derivative, and the part of the penalty in
        # `penalty + f(params)` would be lost without a word in the next one.
        scale = _Scaled.apply if torch.is_grad_enabled() else _scale
        return None, None, *scale(grad_value, ctx.grads, *params)


def _scale(grad_value: Tensor, grads: Sequence[Tensor], *params: Tensor) -> tuple[Tensor, ...]:
    scaled = torch._foreach_mul(list(grads), grad_value)
    return tuple([grad if grad.dtype == param.dtype else grad.to(param.dtype) for grad, param in zip(scaled, params)])


def attach_gradients(value: Tensor, params: Sequence[Tensor], grads: Sequence[Tensor]) -> Tensor:
    """`value` with `grads` as its derivatives by `params`.

    Args:
        value: () a number that is not in a graph.
        params: tensors that require grad, leaves or results (of a parametrization, say), each once.
        grads: of the shapes of the params; float32 at least where a param is narrower.

    Returns:
        The value; differentiable once. A second derivative raises, whatever else the loss is made of.
    """
    return _Attached.apply(value, list(grads), *params) if params else value
