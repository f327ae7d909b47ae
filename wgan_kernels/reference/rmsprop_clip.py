"""RMSProp and clipping (Arjovsky et al. 2017, Algorithm 1, lines 6 and 7), as torch.optim.RMSprop computes it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def rmsprop_clip_(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    square_avgs: Sequence[Tensor],
    momentum_buffers: Sequence[Tensor],
    grad_avgs: Sequence[Tensor],
    steps: Sequence[Tensor],
    stats: Tensor | None,
    lr_tensor: Tensor | None,
    grad_scale: Tensor | None,
    found_inf: Tensor | None,
    lr: float,
    alpha: float,
    eps: float,
    weight_decay: float,
    momentum: float,
    maximize: bool,
    low: float,
    high: float,
) -> None:
    """For each parameter w with gradient g, in float32 at least:

        g <- g + weight_decay w;  v <- alpha v + (1 - alpha) g^2;  a <- alpha a + (1 - alpha) g
        u <- g / (sqrt(v - a^2) + eps);  b <- momentum b + u;  w <- clip(w - lr (b or u), low, high)

    without a where not centered, without b where there is no momentum. See ops/_schemas.py for the arguments.
    """
    # No graph can hold a tensor made under inference mode: it may be changed anywhere, though torch.no_grad() refuses.
    unrecorded = torch.no_grad if torch.compiler.is_compiling() else torch.inference_mode
    with unrecorded():
        for i in range(len(grads)):
            w, v = params[i], square_avgs[i]
            g = _wide(grads[i])
            if grad_scale is not None:
                g = g * grad_scale.double().reciprocal().float()  # as GradScaler unscales
            g = -g if maximize else g
            g = g.add(_wide(w), alpha=weight_decay) if weight_decay != 0 else g
            new_v = _wide(v).mul(alpha).addcmul(g, g, value=1 - alpha)
            spread = new_v
            if grad_avgs:
                new_a = _wide(grad_avgs[i]).lerp(g, 1 - alpha)
                spread = new_v.addcmul(new_a, new_a, value=-1).clamp(min=0)  # below zero by rounding alone
                _write(grad_avgs[i], new_a, found_inf)
            scale = spread.sqrt().add(eps)
            if momentum_buffers:
                new_b = _wide(momentum_buffers[i]).mul(momentum).addcdiv(g, scale)
                new_w = _wide(w) + new_b * -lr_tensor if lr_tensor is not None else _wide(w).add(new_b, alpha=-lr)
                _write(momentum_buffers[i], new_b, found_inf)
            elif lr_tensor is not None:
                new_w = _wide(w).addcdiv(g * -lr_tensor, scale)
            else:
                new_w = _wide(w).addcdiv(g, scale, value=-lr)
            _write(v, new_v, found_inf)
            _write(w, _clipped(new_w, w.dtype, low, high), found_inf)
        for w in params if not grads else ():
            _write(w, _clipped(_wide(w), w.dtype, low, high), found_inf)
        for step in steps:
            step.add_(1 if found_inf is None else (found_inf == 0).to(step))
        if stats is not None:
            _count(params, low, high, stats, found_inf)


def _wide(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _bounds(like: Tensor, dtype: torch.dtype, low: float, high: float) -> Tensor:
    """Rounded to dtype; to infinity where it does not reach as far as the bound."""
    return torch.tensor([low, high], dtype=torch.float64, device=like.device).to(dtype).to(like.dtype)


def _clipped(x: Tensor, dtype: torch.dtype, low: float, high: float) -> Tensor:
    bounds = _bounds(x, dtype, low, high)
    return x.clamp(bounds[0], bounds[1])


def _write(to: Tensor, value: Tensor, found_inf: Tensor | None) -> None:
    to.copy_(value if found_inf is None else torch.where(found_inf == 0, value.to(to.dtype), to))


def _count(params: Sequence[Tensor], low: float, high: float, stats: Tensor, found_inf: Tensor | None) -> None:
    for w in params:
        if w.numel() == 0:
            continue
        bounds = _bounds(w, w.dtype, low, high)
        largest = w.abs().amax().double().view(torch.int64)  # the bits of magnitudes are ordered as these are
        at_bound = ((w <= bounds[0]) | (w >= bounds[1])).sum()
        _write(stats, torch.stack([stats[0] + at_bound, stats[1].maximum(largest)]), found_inf)
