"""norm_penalty: the penalty on per-sample gradient norms, with its first and second derivatives as operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import norm_penalty as reference
from . import _schemas
from ._autograd import differentiable, is_number, is_traced, third_derivative

_REDUCTION_CODES = {"none": 0, "mean": 1, "sum": 2}


def _value_like(grad: Tensor, reduction: int) -> Tensor:
    shape = grad.shape[:1] if reduction == 0 else ()
    return grad.new_empty(shape, dtype=torch.promote_types(grad.dtype, torch.float32))


def _fake(grad: Tensor, target: float, one_sided: bool, reduction: int, weight: float) -> tuple[Tensor, Tensor]:
    return _value_like(grad, reduction), grad.new_empty(grad.shape[:1], dtype=torch.float64)


def _fake_with_grad(grad: Tensor, *settings: Any) -> tuple[Tensor, Tensor, Tensor]:
    return *_fake(grad, *settings), torch.empty_like(grad)


def _fake_backward(grad_value: Tensor, grad: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(grad)


def _fake_double_backward(grad_grad_x: Tensor, grad_value: Tensor, grad: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return torch.empty_like(grad_value), torch.empty_like(grad)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    grad, *ctx.settings = inputs
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(output[1])
    ctx.save_for_backward(grad, output[1])


def _setup_with_grad_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    grad, *ctx.settings = inputs
    _, norms, ctx.kept = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(norms, ctx.kept)
    ctx.save_for_backward(grad, norms)


def _backward_with_grad(ctx: Any, grad_value: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
    if grad_value is None:
        return (None,) * 5
    grad, norms = ctx.saved_tensors
    # Given away once: a caller may write into it.
    kept, ctx.kept = ctx.kept, None
    # With grad mode on, what was kept would hide how it depends on grad.
    if kept is None or torch.is_grad_enabled() or not is_number(grad_value) or grad_value.item() != 1:
        kept = _norm_penalty_backward(grad_value, grad, norms, *ctx.settings)
    return kept, None, None, None, None


def _setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    grad_value, grad, norms, *ctx.settings = inputs
    ctx.save_for_backward(grad_value, grad, norms)


def register(back_end: str = "") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Gives the operators of a back end ('' or '_triton') their fake kernels and derivatives, which stay on that back
    end; returns how to call the first and the second."""
    for name, kernel in {
        "norm_penalty": _fake,
        "norm_penalty_backward": _fake_backward,
        "norm_penalty_double_backward": _fake_double_backward,
    }.items():
        torch.library.register_fake(f"wgan_kernels::{name}{back_end}", kernel, lib=_schemas.LIBRARY)

    def backward(ctx: Any, grad_value: Tensor | None, _: Any) -> tuple[Tensor | None, ...]:
        if grad_value is None:
            return (None,) * 5
        return norm_penalty_backward(grad_value, *ctx.saved_tensors, *ctx.settings), None, None, None, None

    def double_backward(ctx: Any, grad_grad_x: Tensor) -> tuple[Tensor | None, ...]:
        grads = norm_penalty_double_backward(grad_grad_x, *ctx.saved_tensors, *ctx.settings)
        return *grads, None, None, None, None, None

    norm_penalty_double_backward = differentiable(
        f"norm_penalty_double_backward{back_end}", lambda ctx, inputs, output: None, third_derivative("norm_penalty")
    )
    norm_penalty_backward = differentiable(f"norm_penalty_backward{back_end}", _setup_backward_context, double_backward)
    return differentiable(f"norm_penalty{back_end}", _setup_context, backward), norm_penalty_backward


_norm_penalty, _norm_penalty_backward = register()

# The CPU's own.
torch.library.register_fake("wgan_kernels::norm_penalty_with_grad", _fake_with_grad, lib=_schemas.LIBRARY)
_norm_penalty_with_grad = differentiable("norm_penalty_with_grad", _setup_with_grad_context, _backward_with_grad)


def norm_penalty(grad: Tensor, *, target: float = 1.0, one_sided: bool = False, reduction: str = "mean") -> Tensor:
    """Penalty on the L2 norm of each sample's gradient: reduce((||g_i|| - target)^2).

    Args:
        grad: (B, ...) gradients by the samples, float64, float32, bfloat16 or float16; the norm is taken over all
            dimensions but the first.
        target: the norm that costs nothing, at least 0.
        one_sided: only norms above the target cost: max(0, ||g_i|| - target)^2.
        reduction: 'mean' or 'sum' over samples, or 'none'.

    Returns:
        () for 'mean' and 'sum', (B,) for 'none'; float64 for float64 input, else float32.

    Raises:
        TypeError: grad is not a dense floating tensor, target not a number, or one_sided not a bool.
        ValueError: a target that is negative or not finite; an unknown reduction; grad without a batch dimension.

    Differentiable twice; a third derivative raises. Where g_i = 0 the first derivative is 0, and the second, along u,
    is 2 * u (times the reduction's factor) for target 0 and 0 otherwise: never NaN. Sums run in float64 in a fixed
    order: the same input gives the same bits for any number of threads.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3; one-sided: section 4.
    """
    return weighted_norm_penalty(grad, target=target, one_sided=one_sided, reduction=reduction, weight=1.0)[0]


def weighted_norm_penalty(
    grad: Tensor, *, target: float, one_sided: bool, reduction: str, weight: float
) -> tuple[Tensor, Tensor]:
    """weight * norm_penalty(grad), and the norms, (B,) float64, outside the graph."""
    _checks.batched("grad", grad)
    _checks.penalty(target, one_sided, reduction)
    if _backend.is_native(grad, "norm_penalty"):
        if reduction != "none" and grad.is_cpu and grad.requires_grad and torch.is_grad_enabled() and not is_traced():
            return _norm_penalty_with_grad(grad, target, one_sided, _REDUCTION_CODES[reduction], weight)[:2]
        return _norm_penalty(grad, target, one_sided, _REDUCTION_CODES[reduction], weight)
    if _backend.is_triton(grad):
        from . import _triton_operators

        return _triton_operators.norm_penalty(grad, target, one_sided, _REDUCTION_CODES[reduction], weight)
    return reference.norm_penalty(grad, target, one_sided, reduction, weight)
