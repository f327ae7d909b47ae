"""A bias, a leaky rectifier, a gain and a bound, as StyleGAN's layers end, and the derivatives by the output."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bias_leaky_relu(x: Tensor, bias: Tensor | None, negative_slope: float, gain: float, clamp: float | None) -> Tensor:
    """clamp(gain * leaky_relu(x + bias, negative_slope), -clamp, clamp); x: (B, C, ...), bias: (C,)."""
    z = x.to(torch.promote_types(x.dtype, torch.float32))
    if bias is not None:
        z = z + _of_channels(bias.to(z.dtype), z)
    y = (functional.leaky_relu(z, negative_slope) * gain).to(x.dtype)
    if clamp is None:
        return y
    bound = torch.full_like(y.detach(), clamp)
    # No gradient passes at a bound either: of what was clamped, the output says no more than that.
    return torch.where(y.abs() < bound, y, y.detach().clamp(-bound, bound))


def bias_leaky_relu_backward(
    grad_y: Tensor, y: Tensor, negative_slope: float, gain: float, clamp: float | None, needs_bias: bool
) -> tuple[Tensor, Tensor]:
    """grad_x = grad_y * dy/dx; grad_bias: its sum over all dimensions but the second, as wide as float32 at least."""
    wide = _slopes(grad_y, y, negative_slope, gain, clamp)
    over = [d for d in range(y.dim()) if d != 1]
    grad_bias = wide.double().sum(over).to(wide.dtype) if needs_bias else wide.new_empty(0)
    return wide.to(y.dtype), grad_bias


def bias_leaky_relu_double_backward(
    grad_grad_x: Tensor, grad_grad_bias: Tensor | None, y: Tensor, negative_slope: float, gain: float,
    clamp: float | None,
) -> Tensor:  # fmt: skip
    """(grad_grad_x + grad_grad_bias) * dy/dx"""
    along = grad_grad_x.to(torch.promote_types(y.dtype, torch.float32))
    if grad_grad_bias is not None:
        along = along + _of_channels(grad_grad_bias.to(along.dtype), along)
    return _slopes(along, y, negative_slope, gain, clamp).to(y.dtype)


def _slopes(t: Tensor, y: Tensor, negative_slope: float, gain: float, clamp: float | None) -> Tensor:
    """t * dy/dx, in float32 at least."""
    t = t.to(torch.promote_types(t.dtype, torch.float32))
    t = torch.where(y > 0, t * gain, t * (gain * negative_slope))
    return t if clamp is None else torch.where(y.abs() < torch.full_like(y, clamp), t, 0)


def _of_channels(channels: Tensor, like: Tensor) -> Tensor:
    return channels.reshape(-1, *[1] * (like.dim() - 2))
