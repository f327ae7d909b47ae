"""norm_penalty and its two derivatives: rows are split over programs, whose sums are added up in a fixed order."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import (
    autotuned,
    device_of,
    float64_of,
    in_layout_of,
    in_rows,
    narrowed,
    on_boundary,
    operator,
    size_class,
    widened,
    words,
    wrap_triton,
)
from .interpolate import ELEMENTWISE

BLOCK = 2048
PART = 4 * BLOCK  # features that one program sums up
ROWS = 256  # rows that the last program adds at a time
# Of sizes only the distance of rows, D, says how memory is aligned; a kernel compiled for any other gains nothing.
_SCALARS = ["target_high", "target_low", "factor_high", "factor_low", "B", "parts", "size_class"]


@triton.jit
def excess(norm, target, ONE_SIDED: tl.constexpr):
    e = norm - target
    return tl.where(e < 0, 0.0, e) if ONE_SIDED else e


@triton.jit
def first_factor(norm, target, ONE_SIDED: tl.constexpr):
    """phi'(n) / n for phi(n) = (n - target)^2, the scale of the first derivative: 0 at n = 0, and 2 for target 0."""
    divisor = tl.where(norm == 0, 1.0, norm)
    scale = tl.where(norm == 0, 0.0, 2 * excess(norm, target, ONE_SIDED) / divisor)
    return tl.where(target == 0, 2.0, scale)


@triton.jit
def second_factor(norm, target, ONE_SIDED: tl.constexpr):
    """(phi'(n) / n)' * n, the scale of the second derivative along the gradient's direction."""
    flat = (norm == 0) | (norm <= target) if ONE_SIDED else norm == 0
    return tl.where(flat, 0.0, 2 * target / tl.where(flat, 1.0, norm))


@triton.jit
def row_sum(sums, row, parts, inside):
    """The sum of the parts of a row or of rows, in order. sums: [B, parts] float64; row: [] or [ROWS]."""
    total = row.to(tl.float64) * 0
    for part in range(parts):
        total += tl.load(sums + row.to(tl.int64) * parts + part, mask=inside, other=0.0)
    return total


@autotuned([triton.Config({}, num_warps=8)])
@triton.jit
def row_dots_kernel(a, b, sums, D, PART: tl.constexpr, BLOCK: tl.constexpr):
    """sums[row, part] = a . b over a part of a row. a, b: [B, D]; sums: [B, parts] float64."""
    parts = tl.cdiv(D, PART)
    row, part = tl.program_id(0) // parts, tl.program_id(0) % parts
    base = row.to(tl.int64) * D
    total = tl.zeros([BLOCK], tl.float64)
    for first in range(0, tl.minimum(D - part * PART, PART), BLOCK):  # the end of the last part may be beyond an int32
        column = part * PART + first + tl.arange(0, BLOCK)
        left = widened(tl.load(a + base + column, mask=column < D, other=0.0))
        total += left * widened(tl.load(b + base + column, mask=column < D, other=0.0))
    tl.store(sums + row.to(tl.int64) * parts + part, tl.sum(total, 0))


@triton.jit(do_not_specialize=_SCALARS)
def norm_penalty_kernel(
    sums, value, norms, B, parts, target_high, target_low, factor_high, factor_low,
    ONE_SIDED: tl.constexpr, REDUCED: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    """One program. sums: [B, parts] of squares; norms: [B] float64; value: [] or [B]; factor: of each row's penalty."""
    target, factor = float64_of(target_high, target_low), float64_of(factor_high, factor_low)
    total = tl.zeros([ROWS], tl.float64)
    for first in range(0, B, ROWS):
        row = first + tl.arange(0, ROWS)
        norm = tl.sqrt(row_sum(sums, row, parts, row < B))
        tl.store(norms + row, norm, mask=row < B)
        e = excess(norm, target, ONE_SIDED)
        if REDUCED:
            total += tl.where(row < B, e * e, 0.0)
        else:
            tl.store(value + row, (factor * e * e).to(value.dtype.element_ty), mask=row < B)
    if REDUCED:
        tl.store(value, (factor * tl.sum(total, 0)).to(value.dtype.element_ty))


@autotuned(ELEMENTWISE, ["size_class"])
@triton.jit(do_not_specialize=_SCALARS)
def norm_penalty_backward_kernel(
    grad_value, grad, norms, grad_x, D, size_class, target_high, target_low, factor_high, factor_low,
    ONE_SIDED: tl.constexpr, REDUCED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """grad_value: [] or [B]; grad, grad_x: [B, D]; norms: [B] float64."""
    target, factor = float64_of(target_high, target_low), float64_of(factor_high, factor_low)
    blocks = tl.cdiv(D, BLOCK)
    row = tl.program_id(0) // blocks
    outer = tl.load(grad_value if REDUCED else grad_value + row).to(tl.float64)
    scale = outer * factor * first_factor(tl.load(norms + row), target, ONE_SIDED)
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    at, inside = row.to(tl.int64) * D + column, column < D
    out = widened(tl.load(grad + at, mask=inside)) * scale
    tl.store(grad_x + at, narrowed(out, grad_x.dtype.element_ty), mask=inside)


@autotuned(ELEMENTWISE, ["size_class"])
@triton.jit(do_not_specialize=_SCALARS)
def norm_penalty_double_backward_kernel(
    grad_grad_x, grad_value, grad, norms, dots, grad_grad_value, grad_x, B, D, parts, size_class,
    target_high, target_low, factor_high, factor_low,
    ONE_SIDED: tl.constexpr, REDUCED: tl.constexpr, ROWS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dots: [B, parts] of grad_grad_x . grad; one program more than blocks of [B, D], which sums grad_grad_value."""
    target, factor = float64_of(target_high, target_low), float64_of(factor_high, factor_low)
    blocks = tl.cdiv(D, BLOCK)
    if tl.program_id(0) == B * blocks:
        total = tl.zeros([ROWS], tl.float64)
        for first in range(0, B, ROWS):
            rows = first + tl.arange(0, ROWS)
            norm = tl.load(norms + rows, mask=rows < B, other=0.0)
            along = factor * first_factor(norm, target, ONE_SIDED) * row_sum(dots, rows, parts, rows < B)
            if REDUCED:
                total += along
            else:
                tl.store(grad_grad_value + rows, along.to(grad_grad_value.dtype.element_ty), mask=rows < B)
        if REDUCED:
            tl.store(grad_grad_value, tl.sum(total, 0).to(grad_grad_value.dtype.element_ty))
    else:
        row = tl.program_id(0) // blocks
        norm = tl.load(norms + row)
        scale = tl.load(grad_value if REDUCED else grad_value + row).to(tl.float64) * factor
        # second / norm^2, divided in two steps: norm^2 may underflow where the quotient does not overflow.
        divisor = tl.where(norm == 0, 1.0, norm)
        along = row_sum(dots, row, parts, True) / divisor * second_factor(norm, target, ONE_SIDED) / divisor
        column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
        at, inside = row.to(tl.int64) * D + column, column < D
        out = scale * first_factor(norm, target, ONE_SIDED) * widened(tl.load(grad_grad_x + at, mask=inside))
        out += scale * along * widened(tl.load(grad + at, mask=inside))
        tl.store(grad_x + at, narrowed(out, grad_x.dtype.element_ty), mask=inside)


def _shape(rows: Tensor) -> tuple[int, int, int]:
    """B, D, and the parts of a row."""
    D = rows.numel() // max(rows.shape[0], 1)
    return rows.shape[0], D, triton.cdiv(D, PART)


def row_factor(B: int, reduction: int, weight: float) -> float:
    """Of each row's penalty; the mean over no samples is 0 / 0."""
    if reduction != 1:
        return weight
    return weight / B if B > 0 else math.nan


def _row_dots(a: Tensor, b: Tensor) -> Tensor:
    """a, b: [B, D...] of one order of memory -> [B, parts] float64"""
    B, D, parts = _shape(a)
    sums = a.new_empty((B, parts), dtype=torch.float64)
    if sums.numel() > 0:
        wrap_triton(row_dots_kernel)[(B * parts,)](on_boundary(a), b, sums, D, PART=PART, BLOCK=BLOCK)
    return sums


@operator
def norm_penalty(grad: Tensor, target: float, one_sided: bool, reduction: int, weight: float) -> tuple[Tensor, Tensor]:
    """grad: [B, D...] -> value: [] or [B]; norms: [B] float64"""
    (rows,) = in_rows(grad)
    B, _, parts = _shape(rows)
    value = grad.new_empty((B,) if reduction == 0 else (), dtype=torch.promote_types(grad.dtype, torch.float32))
    norms = grad.new_empty((B,), dtype=torch.float64)
    with device_of(grad):
        sums = _row_dots(rows, rows)
        wrap_triton(norm_penalty_kernel)[(1,)](
            sums, value, norms, B, parts, *words(target), *words(row_factor(B, reduction, weight)),
            ONE_SIDED=one_sided, REDUCED=reduction != 0, ROWS=ROWS,
        )  # fmt: skip
    return value, norms


@operator
def norm_penalty_backward(
    grad_value: Tensor, grad: Tensor, norms: Tensor, target: float, one_sided: bool, reduction: int, weight: float
) -> Tensor:
    """grad_value: [] or [B]; grad: [B, D...]; norms: [B] -> [B, D...]"""
    (rows,) = in_rows(grad)
    B, D, _ = _shape(rows)
    grad_x = torch.empty_like(rows)
    if grad_x.numel() > 0:
        with device_of(grad):
            wrap_triton(norm_penalty_backward_kernel)[lambda meta: (B * triton.cdiv(D, meta["BLOCK"]),)](
                grad_value.contiguous(), rows, norms.contiguous(), grad_x, D, size_class(D),
                *words(target), *words(row_factor(B, reduction, weight)), ONE_SIDED=one_sided, REDUCED=reduction != 0,
            )  # fmt: skip
    return in_layout_of(grad, grad_x)


@operator
def norm_penalty_double_backward(
    grad_grad_x: Tensor, grad_value: Tensor, grad: Tensor, norms: Tensor,
    target: float, one_sided: bool, reduction: int, weight: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """grad_grad_x, grad: [B, D...]; grad_value: [] or [B]; norms: [B] -> grad_grad_value: [] or [B]; [B, D...]"""
    rows, grad_rows = in_rows(grad, grad_grad_x)
    B, D, parts = _shape(rows)
    outer = grad_value.contiguous()
    grad_grad_value, grad_x = torch.empty_like(outer), torch.empty_like(rows)
    with device_of(grad):
        wrap_triton(norm_penalty_double_backward_kernel)[lambda meta: (B * triton.cdiv(D, meta["BLOCK"]) + 1,)](
            grad_rows, outer, rows, norms.contiguous(), _row_dots(grad_rows, rows), grad_grad_value, grad_x,
            B, D, parts, size_class(D), *words(target), *words(row_factor(B, reduction, weight)),
            ONE_SIDED=one_sided, REDUCED=reduction != 0, ROWS=ROWS,
        )  # fmt: skip
    return in_layout_of(grad_value, grad_grad_value), in_layout_of(grad, grad_x)
