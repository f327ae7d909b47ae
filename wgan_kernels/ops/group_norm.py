"""group_norm: layer, group and instance normalisation, with their first and second derivatives as operators."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import _backend
from ..reference import group_norm as reference
from . import _schemas
from ._autograd import below_autograd, differentiable, eager_function, third_derivative


def _fake(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = torch.promote_types(x.dtype, torch.float32)
    rows = x.shape[: x.dim() - layer_dims].numel() if layer_dims else x.shape[0]
    return torch.empty_like(x), *[x.new_empty((rows, groups), dtype=dtype) for _ in range(2)]


def _param_grad(x: Tensor, param: Tensor | None, needed: bool) -> Tensor:
    if param is None:
        return x.new_empty((0,), dtype=torch.promote_types(x.dtype, torch.float32))
    return x.new_empty(param.shape if needed else (0,), dtype=param.dtype)


def _fake_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, groups: int,
    layer_dims: int, needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return torch.empty_like(x), *[_param_grad(x, param, needs_params) for param in (weight, bias)]


def _fake_double_backward(
    grad_grad_x: Tensor | None, grad_grad_weight: Tensor | None, grad_grad_bias: Tensor | None, grad_y: Tensor,
    x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, groups: int, layer_dims: int, needs_y: bool,
    needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    by_y = torch.empty_like(x) if needs_y else x.new_empty((0,))
    return by_y, torch.empty_like(x), _param_grad(x, weight, needs_params)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, ctx.groups, ctx.layer_dims, _ = inputs
    _, mean, rstd = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, mean, rstd)


def _setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    grad_y, x, weight, _, mean, rstd, ctx.groups, ctx.layer_dims, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(grad_y, x, weight, mean, rstd)


def register(back_end: str = "") -> tuple[Callable[..., Any], Callable[..., Any]]:
    """Gives the operators of a back end ('' or '_triton') their fake kernels and derivatives, which stay on that back
    end; returns how to call the first and the second."""
    for name, kernel in {
        "group_norm": _fake,
        "group_norm_backward": _fake_backward,
        "group_norm_double_backward": _fake_double_backward,
    }.items():
        torch.library.register_fake(f"wgan_kernels::{name}{back_end}", kernel, lib=_schemas.LIBRARY)

    def backward(ctx: Any, grad_y: Tensor | None, *_: Any) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 6
        _, needs_weight, needs_bias = ctx.needs_input_grad[:3]
        grads = group_norm_backward(grad_y, *ctx.saved_tensors, ctx.groups, ctx.layer_dims, needs_weight or needs_bias)
        grad_x, grad_weight, grad_bias = grads
        return grad_x, grad_weight if needs_weight else None, grad_bias if needs_bias else None, None, None, None

    def double_backward(ctx: Any, u: Tensor | None, p: Tensor | None, q: Tensor | None) -> tuple[Tensor | None, ...]:
        if u is None and p is None and q is None:
            return (None,) * 9
        grad_y, x, weight, mean, rstd = ctx.saved_tensors
        # What was not wanted came out empty, and so is its gradient.
        p, q = [None if each is None or each.numel() == 0 else each for each in (p, q)]
        needs_y, _, needs_weight, *_ = ctx.needs_input_grad
        settings = ctx.groups, ctx.layer_dims, needs_y, needs_weight
        by_y, by_x, by_weight = group_norm_double_backward(u, p, q, grad_y, x, weight, mean, rstd, *settings)
        return by_y if needs_y else None, by_x, by_weight if needs_weight else None, *[None] * 6

    group_norm_double_backward = differentiable(
        f"group_norm_double_backward{back_end}", lambda ctx, inputs, output: None, third_derivative("group_norm")
    )
    group_norm_backward = differentiable(f"group_norm_backward{back_end}", _setup_backward_context, double_backward)
    return differentiable(f"group_norm{back_end}", _setup_context, backward), group_norm_backward


_group_norm, _group_norm_backward = register()


# ---- y alone, for eager callers: the same formulas by the shortest way, for sizes at which Python is the cost


def _value_forward(
    ctx: Any, x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        y, mean, rstd = _FORWARD(x, weight, bias, groups, layer_dims, eps)
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.settings = groups, layer_dims
    return y


def _value_backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
    _, needs_weight, needs_bias, *_ = ctx.needs_input_grad
    if needs_weight or needs_bias:
        # Who asks for the gradient by x alone, as a gradient penalty does, is not to wait for the others.
        if not _are_asked_for(ctx.next_functions[1:]):
            needs_weight = needs_bias = False
    args = grad_y, *ctx.saved_tensors, *ctx.settings, needs_weight or needs_bias
    if torch.is_grad_enabled():
        grads = _group_norm_backward(*args)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            grads = _BACKWARD(*args)
    return grads[0], grads[1] if needs_weight else None, grads[2] if needs_bias else None, None, None, None


def _are_asked_for(edges: Sequence[tuple[Any, int]]) -> bool:
    """Whether the backward pass that is under way goes on to any of these."""
    try:
        return any([node is not None and torch._C._will_engine_execute_node(node) for node, _ in edges])
    except RuntimeError:  # no engine is at work that would know
        return True


_FORWARD, _BACKWARD = torch.ops.wgan_kernels.group_norm.default, torch.ops.wgan_kernels.group_norm_backward.default
_apply = eager_function("group_norm_value", _value_forward, _value_backward)


def _value(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> Tensor:
    is_graph = torch.is_grad_enabled() and (
        x.requires_grad or (weight is not None and weight.requires_grad) or (bias is not None and bias.requires_grad)
    )
    if not is_graph or torch.compiler.is_compiling() or not _backend.is_native(x, "group_norm"):
        return normalised(x, weight, bias, groups, layer_dims, eps)[0]
    # The engine does not say of a leaf whether its gradient is wanted, but of a view of it.
    if weight is not None and weight.requires_grad:
        weight = weight.view_as(weight)
    if bias is not None and bias.requires_grad:
        bias = bias.view_as(bias)
    return _apply(x, weight, bias, groups, layer_dims, eps)


def _group_norm_args(x: Tensor, groups: Any, weight: Any = None, bias: Any = None, *_: Any) -> tuple[Any, ...]:
    return x, weight, bias


@wrap_torch_function(_group_norm_args)
def group_norm(
    x: Tensor, groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """weight * (x - mean) / sqrt(variance + eps) + bias, with mean and variance over each sample's groups of channels.

    Args:
        x: (B, C, ...), float64, float32, bfloat16 or float16, contiguous or channels_last.
        groups: of neighbouring channels; C of them are instance normalisation.
        weight, bias: (C,), of the dtype of x or, beside half floats, float32; or None.
        eps: is added to the variance.

    Returns:
        Of the shape, dtype and memory format of x.

    Differentiable twice; a third derivative raises. Sums are added up in float64 in a fixed order: the same input gives
    the same bits for any number of threads.
    Source: Wu and He 2018, "Group Normalization"; Ulyanov et al. 2016, "Instance Normalization".
    """
    return _value(x, weight, bias, groups, 0, eps)


@wrap_torch_function(_group_norm_args)
def layer_norm(
    x: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """The same over the last dimensions of x, which are of the shape of weight and bias.

    Raises:
        ValueError: x does not end in normalized_shape.

    Source: Ba et al. 2016, "Layer Normalization".
    """
    dims = len(normalized_shape)
    if x.shape[x.dim() - dims :] != tuple(normalized_shape):
        raise ValueError(f"x must end in normalized_shape, {tuple(normalized_shape)}, got shape {tuple(x.shape)}")
    if x.dim() == 4 and dims == 3 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        # In the order of memory a sample is still one stretch.
        x = x.permute(0, 2, 3, 1)
        weight, bias = (None if param is None else param.permute(1, 2, 0) for param in (weight, bias))
        return _value(x, weight, bias, 1, 3, eps).permute(0, 3, 1, 2)
    return _value(x, weight, bias, 1, dims, eps)


def normalised(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """y, and the mean and rstd of each group, (rows, groups), outside the graph."""
    if _backend.is_native(x, "group_norm"):
        return _group_norm(x, weight, bias, groups, layer_dims, eps)
    if _backend.is_triton(x):
        from . import _triton_operators

        return _triton_operators.group_norm(x, weight, bias, groups, layer_dims, eps)
    return reference.group_norm(x, weight, bias, groups, layer_dims, eps)


def run_pass(name: str, x: Tensor, *args: Any) -> tuple[Tensor, ...]:
    """'group_norm', 'group_norm_backward' or 'group_norm_double_backward' of these arguments, whose derivative nobody
    asks for, on the back end that serves x."""
    if _backend.is_native(x, "group_norm"):
        back_end = ""
    elif _backend.is_triton(x):
        from . import _triton_operators  # noqa: F401 - registers it

        back_end = "_triton"
    else:
        with torch.no_grad():
            return getattr(reference, name)(*args)
    return below_autograd(getattr(torch.ops.wgan_kernels, f"{name}{back_end}").default, *args)
