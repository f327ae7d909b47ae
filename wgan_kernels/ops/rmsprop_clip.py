"""rmsprop_clip_: a step of RMSProp and the clipping after it, in one pass over memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import rmsprop_clip as reference
from . import _schemas
from ._autograd import below_autograd


def _fake(params: Sequence[Tensor], *_: object) -> None:
    if len({param.device for param in params}) > 1:
        raise RuntimeError("params are on several devices")


_step = torch.ops.wgan_kernels.rmsprop_clip_.default
torch.library.register_fake("wgan_kernels::rmsprop_clip_", _fake, lib=_schemas.LIBRARY)
_schemas.LIBRARY.impl("rmsprop_clip_", torch.library.fallthrough_kernel, "Autograd")


def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    grad_avgs: Sequence[Tensor],
    steps: Sequence[Tensor],
    *,
    lr: float | Tensor,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    low: float,
    high: float,
    grad_scale: Tensor | None = None,
    found_inf: Tensor | None = None,
    stats: Tensor | None = None,
) -> None:
    """One step of every parameter, in place: reference.rmsprop_clip_ has the formula.

    Args:
        params, grads, square_avgs: any shapes, strides and real floating dtypes, on one device; each parameter once.
        momentum_buffers: as params, or empty without momentum.
        grad_avgs: as params, or empty where the step is not centered.
        steps: [] float32 or float64 each, counted up; on the parameters' device or on the CPU. Empty: not counted.
        lr: a number, or a tensor that holds one, which is not looked at on the host.
        low, high: bounds, infinite for none.
        grad_scale: [] that gradients are divided by. found_inf: [], not 0 where nothing is to be done. On one device
            with the parameters, in float32 or float64.
        stats: [2] int64. How many weights are at a bound is added to the first; the second becomes the largest of
            itself and the bits of every |w| as float64.

    Not differentiable. The parameters' versions are left to the caller.
    """
    number, tensor = (0.0, lr) if isinstance(lr, Tensor) else (lr, None)
    lists = (params, grads, square_avgs, momentum_buffers, grad_avgs, steps)
    numbers = (stats, tensor, grad_scale, found_inf, number, alpha, eps, weight_decay, momentum, maximize, low, high)
    if torch.compiler.is_compiling():
        _operator(params[0])(*lists, *numbers)
        return
    try:
        if _backend.is_native(params[0], "rmsprop_clip_"):
            # Copies that the kernels make where memory has gaps are nothing to record.
            below_autograd(_step, *lists, *numbers)
            return
    except (RuntimeError, TypeError, ValueError, AttributeError):
        # The operator checks every tensor before it writes to one; the wording of what is wrong is left to here.
        _checks.steppable(params, grads, square_avgs, momentum_buffers, grad_avgs)
        raise
    _checks.steppable(params, grads, square_avgs, momentum_buffers, grad_avgs)
    _operator(params[0])(*lists, *numbers)


def _operator(param: Tensor) -> Callable[..., None]:
    """What steps tensors like this one."""
    if _backend.is_native(param, "rmsprop_clip_"):
        return _step
    if _backend.is_triton(param):
        from . import _triton_operators

        return _triton_operators.rmsprop_clip_
    return reference.rmsprop_clip_
