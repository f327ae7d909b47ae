"""Gradients that were computed beside a value enter autograd here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..ops._autograd import is_number

_keeps_graph = torch._C._autograd._get_current_graph_task_keep_graph


class Value(NamedTuple):
    """A number that is not in a graph, and its derivatives by some parameters."""

    value: Tensor  # ()
    # As the parameters are, float32 at least where one is narrower; or what computes them, afresh, from `inputs`, for a
    # value that is hardly ever differentiated.
    grads: Sequence[Tensor] | Callable[..., Sequence[Tensor]]
    # Whether the gradients are nobody else's, so that the last backward pass may hand them out as they are.
    owned: bool = False
    inputs: Sequence[Tensor] = ()


class _Scaled(torch.autograd.Function):
    """Gradients that know that they depend on the parameters, but not how: asking for more raises."""

    @staticmethod
    def forward(ctx: Any, grad_value: Tensor, grads: Sequence[Tensor], *params: Tensor) -> tuple[Tensor, ...]:
        return _scale(grad_value, grads, False, *params)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError(
            "the closed form of the gradient penalty gives its first derivative only; "
            "pass route='double_backward' to differentiate it again"
        )


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, value: Value, *params: Tensor) -> Tensor:
        ctx.grads, ctx.owned = value.grads, value.owned
        ctx.save_for_backward(*params, *value.inputs)
        return value.value.clone()  # a view could not be written into, as `loss += ...` does

    @staticmethod
    def backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, ...]:
        count = len(ctx.needs_input_grad) - 1
        params, inputs = ctx.saved_tensors[:count], ctx.saved_tensors[count:]
        grads = ctx.grads(*inputs) if callable(ctx.grads) else ctx.grads
        # A plain product with grad mode on would pass for a complete derivative, and the part of the penalty in
        # `penalty + f(params)` would be lost without a word in the next one.
        if torch.is_grad_enabled():
            return None, *_Scaled.apply(grad_value, grads, *params)
        last = not _keeps_graph()
        if last:
            ctx.grads = []
        return None, *_scale(grad_value, grads, ctx.owned and last, *params)


def _scale(grad_value: Tensor, grads: Sequence[Tensor], owned: bool, *params: Tensor) -> tuple[Tensor, ...]:
    if owned and is_number(grad_value):
        if grad_value.item() != 1:  # as it is where a loss is the sum of its parts
            torch._foreach_mul_(grads, grad_value)
    elif torch._C._functorch.is_legacy_batchedtensor(grad_value):  # autograd.grad(..., is_grads_batched=True)
        grads = [grad * grad_value for grad in grads]
    else:
        grads = torch._foreach_mul(list(grads), grad_value)
    return tuple([grad if grad.dtype == param.dtype else grad.to(param.dtype) for grad, param in zip(grads, params)])


def attach_gradients(params: Sequence[Tensor], value: Value) -> Tensor:
    """The value with its derivatives by `params`.

    Args:
        params: tensors that require grad, leaves or results (of a parametrization, say), each once.
        value: with a gradient for each of the params.

    Returns:
        The value; differentiable once. A second derivative raises, whatever else the loss is made of.
    """
    return _Attached.apply(value, *params) if params else value.value
