"""minibatch_stddev: how much the samples of a group differ, with its first and second derivatives as operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import minibatch_stddev as reference
from ._autograd import twice_differentiable


def _fake(x: Tensor, group_size: int, num_channels: int) -> Tensor:
    return x.new_empty((x.shape[0] // group_size, num_channels))


def _fake_backward(grad_value: Tensor, x: Tensor, group_size: int, num_channels: int) -> Tensor:
    return torch.empty_like(x)


def _fake_double_backward(
    grad_grad_x: Tensor, grad_value: Tensor, x: Tensor, group_size: int, num_channels: int
) -> tuple[Tensor, Tensor]:
    return _fake(x, group_size, num_channels), torch.empty_like(x)


def register(back_end: str = "") -> Callable[..., Any]:
    return twice_differentiable("minibatch_stddev", back_end, _fake, _fake_backward, _fake_double_backward)


_minibatch_stddev = register()


def minibatch_stddev(x: Tensor, *, group_size: int | None = 4, num_channels: int = 1) -> Tensor:
    """How much the samples of a group differ: value_nf = mean over p in block f of sqrt(var over g of x_gnp + 1e-8).

    Args:
        x: (B, C, ...) samples, float64, float32, bfloat16 or float16. With M = B / group_size, sample b is in group
            b mod M, as in StyleGAN2; p goes over all numbers of the f-th of `num_channels` blocks of channels.
        group_size: samples of a group; None, and more than B, means all of them. It has to divide B.
        num_channels: blocks that the channels are split into; it has to divide C.

    Returns:
        (M, num_channels) in the dtype of x.

    Raises:
        TypeError: x is not a dense floating tensor; sizes that are no whole numbers.
        ValueError: x has no channels; sizes below 1, or which do not divide.

    Differentiable twice, with one pass over x each time; a third derivative raises. Sums run in float64 in a fixed
    order: the same input gives the same bits for any number of threads. channels_last is read as it lies where
    num_channels is 1.
    Source: Karras et al. 2018, "Progressive Growing of GANs", section 3; groups as in Karras et al. 2020, "Analyzing
    and Improving the Image Quality of StyleGAN".
    """
    _checks.floating("x", x)
    if x.dim() < 2:
        raise ValueError(f"x must have the dimensions (B, C, ...), got a tensor of shape {tuple(x.shape)}")
    _checks.positive_integer("num_channels", num_channels)
    if group_size is not None:
        _checks.positive_integer("group_size", group_size)
    B, C = x.shape[:2]
    group_size = max(1, B if group_size is None else min(group_size, B))
    if B % group_size != 0:
        raise ValueError(f"group_size must divide the number of samples, got {group_size} for {B} samples")
    if C % num_channels != 0:
        raise ValueError(f"num_channels must divide the number of channels, got {num_channels} for {C} channels")
    if _backend.is_native(x, "minibatch_stddev"):
        return _minibatch_stddev(x, group_size, num_channels)
    if _backend.is_triton(x):
        from . import _triton_operators

        return _triton_operators.minibatch_stddev(x, group_size, num_channels)
    return reference.minibatch_stddev(x, group_size, num_channels)
