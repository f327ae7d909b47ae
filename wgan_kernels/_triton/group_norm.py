"""group_norm and its two derivatives: a group is a program's, which goes over it twice; sums by channel are added up in
parts, in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, device_of, float64_of, in_layout_of, narrowed, operator, widened, words, wrap_triton

BLOCK = 1024
ROWS, COLUMNS = 32, 32  # positions and channels that are added up at a time
MOST_PARTS = 64
_SCALARS = ["n", "C", "S", "channels", "groups", "rows", "parts", "part_size", "eps_high", "eps_low"]


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


@autotuned([triton.Config({}, num_warps=4)])
@triton.jit(do_not_specialize=_SCALARS)
def group_norm_params_kernel(
    g, x, u, mean, rstd, means, sums, rows, C, S, channels, groups, parts, part_size,
    LAST: tl.constexpr, SECOND: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums: [2, parts, C] float64: of g xhat and g, or of g S u, over a part of the rows, the samples' positions."""
    blocks = tl.cdiv(C, COLUMNS)
    part = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    by_weight, by_bias = tl.zeros([ROWS, COLUMNS], tl.float64), tl.zeros([ROWS, COLUMNS], tl.float64)
    for begin in range(0, tl.minimum(rows - part * part_size, part_size), ROWS):
        i = part * part_size + begin + tl.arange(0, ROWS)[:, None]
        inside = (begin + tl.arange(0, ROWS)[:, None] < part_size) & (i < rows) & (c < C)
        b = i // S
        at = i.to(tl.int64) * C + c if LAST else (b.to(tl.int64) * C + c) * S + i % S
        row = b * groups + c // channels
        r = widened(tl.load(rstd + row, mask=inside, other=0.0))
        centre = widened(tl.load(mean + row, mask=inside, other=0.0))
        xhat = (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r
        xhat -= tl.load(means + row * 3, mask=inside, other=0.0)
        of_y = widened(tl.load(g + at, mask=inside, other=0.0))
        if SECOND:
            s = widened(tl.load(u + at, mask=inside, other=0.0)) - tl.load(means + row * 3 + 1, mask=inside, other=0.0)
            s -= xhat * tl.load(means + row * 3 + 2, mask=inside, other=0.0)
            by_weight += tl.where(inside, of_y * r * s, 0.0)
        else:
            by_weight += tl.where(inside, of_y * xhat, 0.0)
            by_bias += of_y
    to = sums + part.to(tl.int64) * C + c
    tl.store(to, tl.sum(by_weight, 0)[None, :], mask=c < C)
    tl.store(to + parts.to(tl.int64) * C, tl.sum(by_bias, 0)[None, :], mask=c < C)


class _Grouped:
    """x as kernels walk it, and its sizes."""

    def __init__(self, x: Tensor, groups: int, layer_dims: int) -> None:
        first = x.dim() - layer_dims
        self.C = x.shape[first:].numel() if layer_dims else x.shape[1]
        self.B = x.shape[:first].numel() if layer_dims else x.shape[0]
        self.S = 1 if layer_dims else x.shape[2:].numel()
        self.groups, self.channels = groups, self.C // groups
        moved = x.movedim(1, -1) if not layer_dims else x
        self.last = not x.is_contiguous() and moved.is_contiguous()
        self.x = x if self.last else x.contiguous()

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.channels * self.S, self.C, self.S, self.channels, self.groups

    @property
    def rows(self) -> int:
        return self.B * self.groups

    def like(self, tensor: Tensor) -> Tensor:
        return tensor if tensor.stride() == self.x.stride() else torch.empty_like(self.x).copy_(tensor)

    def new(self) -> Tensor:
        return torch.empty_like(self.x)

    def new_means(self) -> Tensor:
        return self.x.new_empty((self.rows, 3), dtype=torch.float64)


def _flat(param: Tensor | None, like: Tensor) -> Tensor:
    """A parameter in one stretch; anything where there is none."""
    return like if param is None else param.contiguous()


def _param_grads(
    of: _Grouped, g: Tensor, u: Tensor | None, mean: Tensor, rstd: Tensor, means: Tensor, params: list[Tensor | None],
    needed: bool,
) -> list[Tensor]:  # fmt: skip
    """The gradients of parameters; no elements where they are not there or not needed."""
    wide = torch.promote_types(of.x.dtype, torch.float32)
    if not needed or all([param is None for param in params]):
        return [of.x.new_empty((0,), dtype=wide if param is None else param.dtype) for param in params]
    rows = of.B * of.S
    part_size = max(2 * ROWS, -(-rows // MOST_PARTS))
    parts = -(-rows // part_size)
    sums = of.x.new_empty((2, parts, of.C), dtype=torch.float64)
    if sums.numel() > 0:
        wrap_triton(group_norm_params_kernel)[(parts * triton.cdiv(of.C, COLUMNS),)](
            g, of.x, g if u is None else u, mean, rstd, means, sums, rows, *of.sizes[1:], parts, part_size,
            LAST=of.last or of.S == 1, SECOND=u is not None, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
    totals = sums.sum(1)
    return [
        of.x.new_empty((0,), dtype=wide) if param is None else total.to(param.dtype, copy=True).view(param.shape)
        for param, total in zip(params, totals)
    ]


@operator
def group_norm(
    x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops/_schemas.py has it."""
    of = _Grouped(x, groups, layer_dims)
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
    of = _Grouped(x, groups, layer_dims)
    g, grad_x, means = of.like(grad_y), of.new(), of.new_means()
    mean, rstd = mean.contiguous(), rstd.contiguous()
    with device_of(x):
        if x.numel() > 0:
            wrap_triton(group_norm_backward_kernel)[(of.rows,)](
                g, of.x, _flat(weight, of.x), mean, rstd, grad_x, means, *of.sizes, LAST=of.last,
                WEIGHT=weight is not None, BLOCK=BLOCK,
            )  # fmt: skip
        grads = _param_grads(of, g, None, mean, rstd, means, [weight, bias], needs_params)
    return in_layout_of(x, grad_x), grads[0], grads[1]


@operator
def group_norm_double_backward(
    grad_grad_x: Tensor | None, grad_grad_weight: Tensor | None, grad_grad_bias: Tensor | None, grad_y: Tensor,
    x: Tensor, weight: Tensor | None, mean: Tensor, rstd: Tensor, groups: int, layer_dims: int, needs_y: bool,
    needs_params: bool,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As ops/_schemas.py has it."""
    of = _Grouped(x, groups, layer_dims)
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
        (grad_weight,) = _param_grads(of, g, u, mean, rstd, means, [weight], needs_params)
    # Kernels with and without it would be twice as many to compile.
    return in_layout_of(x, by_y) if needs_y else x.new_empty((0,)), in_layout_of(x, by_x), grad_weight
