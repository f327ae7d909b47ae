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
    # As the parameters are, float32 at least where one is narrower; or what computes them, for a value that is hardly
    # ever differentiated.
    grads: Sequence[Tensor] | Callable[[], Sequence[Tensor]]
    # Whether the gradients are nobody else's, so that a backward pass may hand them out as they are.
    owned: bool = False


class _Scaled(torch.autograd.Function):
    """Gradients that know that they depend on the parameters, but not how: asking for more raises."""

    @staticmethod
    def forward(ctx: Any, grad_values: Sequence[Tensor | None], values: list[Value], *params: Tensor) -> Any:
        return _scale(grad_values, values, *params)

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> None:
        raise NotImplementedError(
            "the closed form of the gradient penalty gives its first derivative only; "
            "call gradient_penalty(..., route='double_backward') to differentiate it again"
        )


class _Attached(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Sequence[Value], *params: Tensor) -> tuple[Tensor, ...]:
        ctx.values = list(values)
        ctx.save_for_backward(*params)
        ctx.set_materialize_grads(False)
        return tuple([value.value.view_as(value.value) for value in values])

    @staticmethod
    def backward(ctx: Any, *grad_values: Tensor | None) -> tuple[Tensor | None, ...]:
        params = ctx.saved_tensors
        # A plain product with grad mode on would pass for a complete derivative, and the part of the penalty in
        # `penalty + f(params)` would be lost without a word in the next one.
        if torch.is_grad_enabled():
            return None, *_Scaled.apply(grad_values, ctx.values, *params)
        values = ctx.values
        if _keeps_graph():
            values = [value._replace(owned=False) for value in values]
        else:
            ctx.values = []
        return None, *_scale(grad_values, values, *params)


def _scale(grad_values: Sequence[Tensor | None], values: Sequence[Value], *params: Tensor) -> tuple[Tensor, ...]:
    total: Sequence[Tensor] | None = None
    for grad_value, value in zip(grad_values, values):
        if grad_value is not None:
            part = _product(grad_value, value)
            total = part if total is None else torch._foreach_add(total, part)
    total = [torch.zeros_like(param) for param in params] if total is None else total
    return tuple([grad if grad.dtype == param.dtype else grad.to(param.dtype) for grad, param in zip(total, params)])


def _product(grad_value: Tensor, value: Value) -> Sequence[Tensor]:
    grads = value.grads() if callable(value.grads) else value.grads
    if value.owned and is_number(grad_value):
        if grad_value.item() != 1:  # as it is where a loss is the sum of its parts
            torch._foreach_mul_(grads, grad_value)
        return grads
    if torch._C._functorch.is_legacy_batchedtensor(grad_value):  # autograd.grad(..., is_grads_batched=True)
        return [grad * grad_value for grad in grads]
    return torch._foreach_mul(list(grads), grad_value)


def attach_gradients(params: Sequence[Tensor], *values: Value) -> tuple[Tensor, ...]:
    """The values with their derivatives by `params`.

    Args:
        params: tensors that require grad, leaves or results (of a parametrization, say), each once.
        values: with a gradient for each of the params.

    Returns:
        The values; differentiable once. A second derivative raises, whatever else the loss is made of.
    """
    return _Attached.apply(values, *params) if params else tuple([value.value for value in values])
