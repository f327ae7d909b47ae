"""group_norm and its two derivatives: a group is a program's, which goes over it twice."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._channel_sums import Grouped, param_gradients
from ._launch import autotuned, device_of, float64_of, in_layout_of, narrowed, operator, widened, words, wrap_triton

BLOCK = 1024
_SCALARS = ["n", "C", "S", "channels", "groups", "eps_high", "eps_low"]


@triton.jit
def places(row, index, n, C, S, channels, groups, LAST: tl.constexpr):
    """Where elements of a group lie, and their channels. index: [BLOCK], in the order of memory."""
    group = row % groups
    if LAST:  # [B, S, C]
        position, channel = index // channels, group * channels + index % channels
        return ((row // groups).to(tl.int64) * S + position) * C + channel, channel
    else:  # [B, C, S]
        return row.to(tl.int64) * n + index, group * channels + index // S


@triton.jit
def param_of(param, channel, inside, missing, GIVEN: tl.constexpr):
    if GIVEN:
        return widened(tl.load(param + channel, mask=inside, other=0.0))
    else:
        return channel * 0.0 + missing


@autotuned([triton.Config({}, num_warps=4)])
@triton.jit(do_not_specialize=_SCALARS)
def group_norm_kernel(
    x, weight, bias, y, mean, rstd, n, C, S, channels, groups, eps_high, eps_low,
    LAST: tl.constexpr, WEIGHT: tl.constexpr, BIAS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """x, y: [B, C, S] in either order; weight, bias: [C]; mean, rstd: [B, groups]."""
    row = tl.program_id(0)
    first, first_channel = places(row, tl.arange(0, 1), n, C, S, channels, groups, LAST)
    around = tl.sum(widened(tl.load(x + first)), 0)
    total, squares = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        d = tl.where(index < n, widened(tl.load(x + at, mask=index < n, other=0.0)) - around, 0.0)
        total += d
        squares += d * d
    off = tl.sum(total, 0) / n
    variance = tl.sum(squares, 0) / n - off * off
    r = 1.0 / tl.sqrt(tl.where(variance < 0, 0.0, variance) + float64_of(eps_high, eps_low))
    tl.store(mean + row, (around + off).to(mean.dtype.element_ty))
    tl.store(rstd + row, r.to(rstd.dtype.element_ty))
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < n
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        xhat = (widened(tl.load(x + at, mask=inside, other=0.0)) - around - off) * r
        out = xhat * param_of(weight, channel, inside, 1.0, WEIGHT) + param_of(bias, channel, inside, 0.0, BIAS)
        tl.store(y + at, narrowed(out, y.dtype.element_ty), mask=inside)


@autotuned([triton.Config({}, num_warps=8)])
@triton.jit(do_not_specialize=_SCALARS)
def group_norm_backward_kernel(
    g, x, weight, mean, rstd, grad_x, means, n, C, S, channels, groups,
    LAST: tl.constexpr, WEIGHT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """g, x, grad_x: [B, C, S]; means: [B * groups, 3] float64, of which the first are those of xhat."""
    row = tl.program_id(0)
    centre, r = widened(tl.load(mean + row)), widened(tl.load(rstd + row))
    sum_x, sum_a, sum_ax = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < n
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        xhat = tl.where(inside, (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r, 0.0)
        a = widened(tl.load(g + at, mask=inside, other=0.0)) * param_of(weight, channel, inside, 1.0, WEIGHT)
        sum_x += xhat
        sum_a += a
        sum_ax += a * xhat
    shift, A = tl.sum(sum_x, 0) / n, tl.sum(sum_a, 0) / n
    AX = tl.sum(sum_ax, 0) / n - shift * A
    tl.store(means + row * 3, shift)
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < n
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        xhat = (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r - shift
        a = widened(tl.load(g + at, mask=inside, other=0.0)) * param_of(weight, channel, inside, 1.0, WEIGHT)
        tl.store(grad_x + at, narrowed(r * (a - A - xhat * AX), grad_x.dtype.element_ty), mask=inside)


@autotuned([triton.Config({}, num_warps=8)])
@triton.jit(do_not_specialize=_SCALARS)
def group_norm_double_backward_kernel(
    u, p, q, g, x, weight, mean, rstd, by_y, by_x, means, n, C, S, channels, groups,
    LAST: tl.constexpr, WEIGHT: tl.constexpr, P: tl.constexpr, Q: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """u, g, x, by_y, by_x: [B, C, S]; p, q, weight: [C]; means: [B * groups, 3] float64, of xhat, u and u xhat."""
    row = tl.program_id(0)
    centre, r = widened(tl.load(mean + row)), widened(tl.load(rstd + row))
    sum_x, sum_u, sum_ux = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    sum_a, sum_ax, sum_au = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    sum_p, sum_px = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < n
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        xhat = tl.where(inside, (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r, 0.0)
        of_y = widened(tl.load(g + at, mask=inside, other=0.0))
        along = widened(tl.load(u + at, mask=inside, other=0.0))
        a = of_y * param_of(weight, channel, inside, 1.0, WEIGHT)
        pg = of_y * param_of(p, channel, inside, 0.0, P)
        sum_x += xhat
        sum_u += along
        sum_ux += along * xhat
        sum_a += a
        sum_ax += a * xhat
        sum_au += a * along
        sum_p += pg
        sum_px += pg * xhat
    shift, U, A, PG = tl.sum(sum_x, 0) / n, tl.sum(sum_u, 0) / n, tl.sum(sum_a, 0) / n, tl.sum(sum_p, 0) / n
    UX, AX = tl.sum(sum_ux, 0) / n - shift * U, tl.sum(sum_ax, 0) / n - shift * A
    PX = tl.sum(sum_px, 0) / n - shift * PG
    both = tl.sum(sum_au, 0) / n - A * U - AX * UX
    tl.store(means + row * 3, shift)
    tl.store(means + row * 3 + 1, U)
    tl.store(means + row * 3 + 2, UX)
    for begin in range(0, n, BLOCK):
        index = begin + tl.arange(0, BLOCK)
        inside = index < n
        at, channel = places(row, index, n, C, S, channels, groups, LAST)
        xhat = (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r - shift
        of_y = widened(tl.load(g + at, mask=inside, other=0.0))
        s_u = widened(tl.load(u + at, mask=inside, other=0.0)) - U - xhat * UX
        w, by_weight = param_of(weight, channel, inside, 1.0, WEIGHT), param_of(p, channel, inside, 0.0, P)
        out = r * w * s_u + by_weight * xhat + param_of(q, channel, inside, 0.0, Q)
        tl.store(by_y + at, narrowed(out, by_y.dtype.element_ty), mask=inside)
        s_a = of_y * w - A - xhat * AX
        out = r * (of_y * by_weight - PG - xhat * PX) - r * r * (xhat * both + UX * s_a + AX * s_u)
        tl.store(by_x + at, narrowed(out, by_x.dtype.element_ty), mask=inside)


def _flat(param: Tensor | None, like: Tensor) -> Tensor:
    """A parameter in one stretch; anything where there is none."""
    return like if param is None else param.contiguous()


@operator
def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops/_schemas.py has it."""
    of = Grouped(x, groups, layer_dims)
    y = of.new()
    mean, rstd = [x.new_empty((of.B, groups), dtype=torch.promote_types(x.dtype, torch.float32)) for _ in range(2)]
    if x.numel() > 0:
        with device_of(x):
            wrap_triton(group_norm_kernel)[(of.rows,)](
                of.x, _flat(weight, of.x), _flat(bias, of.x), y, mean, rstd, *of.sizes, *words(eps), LAST=of.last,
                WEIGHT=weight is not None, BIAS=bias is not None, BLOCK=BLOCK,
            )  # fmt: skip
    return in_layout_of(x, y), mean, rstd


@operator
def group_norm_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor | None, bias: Tensor | None, mean: Tensor, rstd: Tensor, groups: int,
    layer_dims: int, needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As ops/_schemas.py has it."""
    of = Grouped(x, groups, layer_dims)
    g, grad_x, means = of.like(grad_y), of.new(), of.new_means()
    mean, rstd = mean.contiguous(), rstd.contiguous()
    with device_of(x):
        if x.numel() > 0:
            wrap_triton(group_norm_backward_kernel)[(of.rows,)](
                g, of.x, _flat(weight, of.x), mean, rstd, grad_x, means, *of.sizes, LAST=of.last,
                WEIGHT=weight is not None, BLOCK=BLOCK,
            )  # fmt: skip
        grads = param_gradients(of, g, None, mean, rstd, means, [weight, bias], needs_params)
    return in_layout_of(x, grad_x), grads[0], grads[1]


@operator
def group_norm_double_backward(
    grad_grad_x: Tensor | None, grad_grad_weight: Tensor | None, grad_grad_bias: Tensor | None, grad_y: Tensor,
    x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, groups: int, layer_dims: int, needs_y: bool,
    needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As ops/_schemas.py has it."""
    of = Grouped(x, groups, layer_dims)
    u = torch.zeros_like(of.x) if grad_grad_x is None else of.like(grad_grad_x)
    g, by_y, by_x, means = of.like(grad_y), of.new(), of.new(), of.new_means()
    mean, rstd = mean.contiguous(), rstd.contiguous()
    p, q = grad_grad_weight, grad_grad_bias
    with device_of(x):
        if x.numel() > 0:
            wrap_triton(group_norm_double_backward_kernel)[(of.rows,)](
                u, _flat(p, of.x), _flat(q, of.x), g, of.x, _flat(weight, of.x), mean, rstd, by_y, by_x, means,
                *of.sizes, LAST=of.last, WEIGHT=weight is not None, P=p is not None, Q=q is not None, BLOCK=BLOCK,
            )  # fmt: skip
        (grad_weight,) = param_gradients(of, g, u, mean, rstd, means, [weight], needs_params)
    # Kernels with and without it would be twice as many to compile.
    return in_layout_of(x, by_y) if needs_y else x.new_empty((0,)), in_layout_of(x, by_x), grad_weight
