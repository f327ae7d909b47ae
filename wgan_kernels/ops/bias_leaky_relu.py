"""bias_leaky_relu: a bias, a leaky rectifier, a gain and a bound in one pass, and the derivatives by its output."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import wrap_torch_function

from .. import _backend, _checks
from ..reference import bias_leaky_relu as reference
from . import _schemas
from ._autograd import below_autograd, differentiable, eager_function


def _fake(x: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(x)


def _fake_backward(
    grad_y: Tensor, y: Tensor, negative_slope: float, gain: float, clamp: float | None, needs_bias: bool
) -> tuple[Tensor, Tensor]:
    channels = y.shape[1] if needs_bias else 0
    return torch.empty_like(y), y.new_empty((channels,), dtype=torch.promote_types(y.dtype, torch.float32))


def _fake_double_backward(grad_grad_x: Tensor, grad_grad_bias: Tensor | None, y: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(y)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, *ctx.settings = inputs
    ctx.bias_dtype = None if bias is None else bias.dtype
    # Second derivatives by the result are none: whoever made x is not to go on with zeros.
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output)


def _setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, y, *ctx.settings, _ = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y)


def _setup_double_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, _, y, *ctx.settings = inputs
    ctx.save_for_backward(y)


def register(back_end: str = "") -> tuple[Callable[..., Any], Callable[..., Any], Callable[..., Any]]:
    """Gives the operators of a back end ('' or '_triton') their fake kernels and derivatives, which stay on that back
    end; returns how to call the three of them.

    The first derivative is linear in grad_y and the second in grad_grad_x and grad_grad_bias, so that each is the
    derivative of the other; by x itself they are constant, but for the kinks.
    """
    for name, kernel in {
        "bias_leaky_relu": _fake,
        "bias_leaky_relu_backward": _fake_backward,
        "bias_leaky_relu_double_backward": _fake_double_backward,
    }.items():
        torch.library.register_fake(f"wgan_kernels::{name}{back_end}", kernel, lib=_schemas.LIBRARY)

    def by_output(ctx: Any, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
        if grad_y is None:
            return (None,) * 5
        needs_bias = ctx.needs_input_grad[1]
        grad_x, grad_bias = backward(grad_y, *ctx.saved_tensors, *ctx.settings, needs_bias)
        return grad_x, grad_bias.to(ctx.bias_dtype) if needs_bias else None, None, None, None

    def by_grads(ctx: Any, u: Tensor | None, p: Tensor | None) -> tuple[Tensor | None, ...]:
        (y,) = ctx.saved_tensors
        if u is None and p is None:
            return (None,) * 6
        u = torch.zeros_like(y) if u is None else u
        return double_backward(u, p if p is None or p.numel() else None, y, *ctx.settings), *[None] * 5

    def by_double(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        needs_bias = ctx.needs_input_grad[1]
        by_u, by_p = backward(grad, *ctx.saved_tensors, *ctx.settings, needs_bias)
        return by_u, by_p if needs_bias else None, None, None, None, None

    double_backward = differentiable(
        f"bias_leaky_relu_double_backward{back_end}", _setup_double_backward_context, by_double
    )
    backward = differentiable(f"bias_leaky_relu_backward{back_end}", _setup_backward_context, by_grads)
    return differentiable(f"bias_leaky_relu{back_end}", _setup_context, by_output), backward, double_backward


_bias_leaky_relu, _, _double_backward = register()


# ---- for eager callers: the same formulas by the shortest way, for sizes at which Python is the cost

_FORWARD = torch.ops.wgan_kernels.bias_leaky_relu.default
_BACKWARD = torch.ops.wgan_kernels.bias_leaky_relu_backward.default
_DOUBLE_BACKWARD = torch.ops.wgan_kernels.bias_leaky_relu_double_backward.default


def _eager(ctx: Any, x: Tensor, bias: Tensor | None, negative_slope: float, gain: float, clamp: float | None) -> Tensor:
    with torch._C._AutoDispatchBelowAutograd():
        y = _FORWARD(x, bias, negative_slope, gain, clamp)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y)
    ctx.settings = negative_slope, gain, clamp, None if bias is None else bias.dtype
    return y


def _eager_by_output(ctx: Any, grad_y: Tensor | None) -> tuple[Tensor | None, ...]:
    if grad_y is None:
        return (None,) * 5
    (y,) = ctx.saved_tensors
    negative_slope, gain, clamp, dtype = ctx.settings
    needs_bias = ctx.needs_input_grad[1]
    if torch.is_grad_enabled():
        grad_x, grad_bias = _apply_backward(grad_y, y, negative_slope, gain, clamp, needs_bias)
    else:
        with torch._C._AutoDispatchBelowAutograd():
            grad_x, grad_bias = _BACKWARD(grad_y, y, negative_slope, gain, clamp, needs_bias)
    return grad_x, grad_bias.to(dtype) if needs_bias else None, None, None, None


def _eager_backward(
    ctx: Any, grad_y: Tensor, y: Tensor, negative_slope: float, gain: float, clamp: float | None, needs_bias: bool
) -> tuple[Tensor, Tensor]:
    with torch._C._AutoDispatchBelowAutograd():
        grads = _BACKWARD(grad_y, y, negative_slope, gain, clamp, needs_bias)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(y)
    ctx.settings = negative_slope, gain, clamp
    return grads


def _eager_by_grads(ctx: Any, u: Tensor | None, p: Tensor | None) -> tuple[Tensor | None, ...]:
    if u is None and p is None:
        return (None,) * 6
    (y,) = ctx.saved_tensors
    u, p = torch.zeros_like(y) if u is None else u, None if p is None or p.numel() == 0 else p
    if torch.is_grad_enabled():
        return _double_backward(u, p, y, *ctx.settings), None, None, None, None, None
    with torch._C._AutoDispatchBelowAutograd():
        return _DOUBLE_BACKWARD(u, p, y, *ctx.settings), None, None, None, None, None


_apply = eager_function("bias_leaky_relu", _eager, _eager_by_output)
_apply_backward = eager_function("bias_leaky_relu_backward", _eager_backward, _eager_by_grads)


@wrap_torch_function(lambda x, bias=None, *_, **__: (x, bias))
def bias_leaky_relu(
    x: Tensor,
    bias: Tensor | None = None,
    negative_slope: float = 0.01,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor:
    """clamp(gain * leaky_relu(x + bias, negative_slope), -clamp, clamp), in one pass.

    Args:
        x: (B, C, ...), float64, float32, bfloat16 or float16; without a bias of any shape.
        bias: (C,), of the dtype of x or, beside half floats, float32; or None.
        negative_slope: of the rectifier below 0, at least 0.
        gain: what its result is multiplied by, more than 0.
        clamp: the largest magnitude of the result, more than 0; or None.

    Returns:
        Of the shape and dtype of x; channels_last where x is. Computed in float64 for float64 input, else in float32,
        and rounded once.

    Raises:
        TypeError: x or bias is not a dense floating tensor, or bias of another dtype; a setting is not a number.
        ValueError: a bias that is not (C,), or on another device; a negative slope below 0 (the result would not tell
            on which side of 0 a number was), or another setting out of its range.

    Differentiable any number of times, by the result alone, which is what a graph keeps. Where the result is 0, and
    where it is NaN, the slope is that below 0, as torch has it. At a bound, where torch passes on the gradient of what
    is equal to it, the derivative is 0; so is that of NaN where there are bounds, as torch's is. Sums run in float64 in
    a fixed order: the same input gives the same bits for any number of threads.
    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2 and appendix B.
    """
    _check(x, bias)
    settings = settings_of(x.dtype, negative_slope, gain, clamp)
    if _backend.is_native(x, "bias_leaky_relu"):
        is_graph = torch.is_grad_enabled() and (x.requires_grad or (bias is not None and bias.requires_grad))
        if is_graph and not torch.compiler.is_compiling():
            return _apply(x, bias, *settings)
        return _bias_leaky_relu(x, bias, *settings)
    if _backend.is_triton(x):
        from . import _triton_operators

        return _triton_operators.bias_leaky_relu(x, bias, *settings)
    return reference.bias_leaky_relu(x, bias, *settings)


def _check(x: Tensor, bias: Tensor | None) -> None:
    _checks.floating("x", x)
    if bias is None:
        return
    _checks.floating("bias", bias)
    _checks.same_device("x", x, "bias", bias)
    if x.dim() < 2 or bias.shape != x.shape[1:2]:
        wanted = f"({x.shape[1]},), one number for each channel of x," if x.dim() > 1 else "None beside no channels,"
        raise ValueError(f"bias must be {wanted} got shape {tuple(bias.shape)} beside x of shape {tuple(x.shape)}")
    if bias.dtype != x.dtype and (bias.dtype != torch.float32 or x.dtype.itemsize > 2):
        raise TypeError(f"bias must have the dtype of x, {x.dtype}, or be float32 beside half floats, got {bias.dtype}")


def settings_of(dtype: torch.dtype, negative_slope: Any, gain: Any, clamp: Any) -> tuple[float, float, float | None]:
    """What the operators are given for these, once checked. A bound that the dtype cannot hold, nothing reaches."""
    plain = type(negative_slope) is float and type(gain) is float and clamp is None
    if not (plain and 0.0 <= negative_slope < math.inf and 0.0 < gain < math.inf):
        negative_slope, gain = _checks.rectifier(negative_slope, gain, clamp)
    return negative_slope, gain, None if clamp is None or clamp > torch.finfo(dtype).max else float(clamp)


def run_pass(name: str, y: Tensor, *args: Any) -> Any:
    """'bias_leaky_relu_backward' or 'bias_leaky_relu_double_backward' of these arguments, whose derivative nobody asks
    for, on the back end that serves y."""
    if _backend.is_native(y, "bias_leaky_relu"):
        back_end = ""
    elif _backend.is_triton(y):
        from . import _triton_operators  # noqa: F401 - registers it

        back_end = "_triton"
    else:
        with torch.no_grad():
            return getattr(reference, name)(*args)
    return below_autograd(getattr(torch.ops.wgan_kernels, f"{name}{back_end}").default, *args)
