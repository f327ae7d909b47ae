"""The value of kernel_sums alone, for fixed numbers: its formulas by the shortest way, where Python is the cost."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from .. import _backend
from ._autograd import eager_function
from ._mixtures import allows_tf32, as_tensors, keep_for_graphs, shapes_of
from .kernel_sums import (
    NEEDS_X,
    NEEDS_Y,
    kernel_sums,
    kernel_sums_backward,
    needs_of,
    only_needed,
    run_kernel_sums,
    scaled,
)


@functools.lru_cache(maxsize=256)
def _cached_constants(
    kinds: Any,
    shapes: Any,
    params: Any,
    weights: Any,
    device: torch.device,
    allow_tf32: bool,
    diagonal: bool,
    needs: int,
) -> tuple[Any, ...]:
    """What the operator takes after x and y."""
    with torch.inference_mode(False):
        codes, params, weights = as_tensors(kinds, params, weights, device)
    return weights, params, codes, shapes_of(kinds, shapes), allow_tf32, 0, -1, diagonal, needs


def _run_value(x: Tensor, y: Tensor, constants: tuple[Any, ...]) -> tuple[Tensor, ...]:
    with torch._C._AutoDispatchBelowAutograd():
        return run_kernel_sums(x, y, *constants)


def _value_forward(ctx: Any, x: Tensor, y: Tensor, constants: tuple[Any, ...]) -> Tensor:
    value, _, grad_x, grad_y, _ = _run_value(x, y, constants)
    ctx.save_for_backward(x, y, grad_x, grad_y)  # what is kept in other ways, activation checkpointing cannot drop
    ctx.constants = constants
    return value


def _value_backward(ctx: Any, grad_value: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
    needs_x, needs_y, _ = ctx.needs_input_grad
    x, y, kept_x, kept_y = ctx.saved_tensors
    if torch.is_grad_enabled():
        weights, params, *settings, _ = ctx.constants
        total, needs = weights * grad_value[..., None, None].double(), needs_of(needs_x, needs_y, False)
        grad_x, grad_y, _ = only_needed(kernel_sums_backward(total, x, y, params, *settings, needs), needs)
        return grad_x, grad_y, None
    kept = [kept_x if needs_x else None, kept_y if needs_y else None, None]
    grad_x, grad_y, _ = scaled(kept, grad_value, x)
    return grad_x, grad_y, None


_kernel_sums_value = eager_function("kernel_sums_value", _value_forward, _value_backward, listened=True)


def weighted_kernel_sum(
    x: Tensor,
    y: Tensor,
    kinds: tuple[str, ...],
    params: Tensor | tuple[float, ...],
    weights: Tensor | tuple[Any, Any, Any],
    *,
    shapes: tuple[float, ...] | None = None,
    diagonal: bool = False,
) -> Tensor:
    """The value of kernel_sums over all rows."""
    if (
        type(params) is not tuple
        or type(weights) is not tuple
        or torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or not _backend.is_native(x, "kernel_sums", len(kinds))
    ):
        return kernel_sums(x, y, kinds, params, weights, shapes=shapes, diagonal=diagonal)[0]
    needs = NEEDS_X * x.requires_grad + NEEDS_Y * y.requires_grad if torch.is_grad_enabled() else 0
    constants = _cached_constants(kinds, shapes, params, weights, x.device, allows_tf32(x), diagonal, needs)
    keep_for_graphs(constants[0], constants[1])
    return _kernel_sums_value(x, y, constants) if needs else _run_value(x, y, constants)[0]
