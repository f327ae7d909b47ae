"""What the programs of a sweep over pairs left, added up in order."""

from __future__ import annotations

import triton
import triton.language as tl

from ._kernel_functions import POLYNOMIAL, kernel_terms
from ._launch import narrowed

FINISH_PARTS, FINISH_ELEMENTS = 64, 1024


@triton.jit
def sum_of_parts(sums, tiles_from, tiles_to, S, C: tl.constexpr, CPAD: tl.constexpr, PARTS: tl.constexpr):
    """[CPAD] float64, of the programs of some tiles, in order. sums: [tiles, S, 4, C]"""
    component = tl.arange(0, CPAD)
    total = tl.zeros([PARTS, CPAD], tl.float64)
    for first in range(tiles_from * S, tiles_to * S, PARTS):
        part = first + tl.arange(0, PARTS)
        mask = (part < tiles_to * S)[:, None] & (component < C)[None, :]
        total += tl.load(sums + part[:, None] * 4 * C + component[None, :], mask=mask, other=0.0)
    return tl.sum(total, 0)


@triton.jit
def self_terms(
    thetas, along_thetas, shapes, Q, KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr, TANGENT: tl.constexpr
):  # fmt: skip
    """k and k_t at distance 0, where a point meets itself, [CPAD] float64, or their derivatives; 0 for kernels of inner
    products, of which the sweep counted these pairs."""
    component = tl.arange(0, CPAD)
    k_at_zero, t_at_zero = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    for c in tl.static_range(C):
        if (KINDS >> (32 * c)) & 15 != POLYNOMIAL:
            k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(
                tl.zeros([CPAD], tl.float64), tl.load(thetas + c * Q), tl.load(shapes + c),
                (KINDS >> (32 * c)) & 0xFFFFFFFF,
            )  # fmt: skip
            if TANGENT:
                k, k_t = k_t * tl.load(along_thetas + c), k_tt * tl.load(along_thetas + c)
            k_at_zero += tl.where(component == c, k, 0.0)
            t_at_zero += tl.where(component == c, k_t, 0.0)
    return k_at_zero, t_at_zero


@triton.jit
def finish_sums(
    sums, weights, thetas, along_thetas, shapes, value, totals, grad_thetas, b, N, M, begin, end, S, Q, weight_stride,
    KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr, THETA: tl.constexpr, TANGENT: tl.constexpr,
    DIAGONAL: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
):  # fmt: skip
    """The sums of problem b over all programs, and what follows from them. value: [B]; totals: [B, 3, C];
    grad_thetas: [B, C]"""
    tiles_x = tl.cdiv(N, BLOCK)
    tiles = tiles_x + tl.cdiv(M, BLOCK)
    sums += b * tiles * S * 4 * C
    component = tl.arange(0, CPAD)
    held = component < C
    selves_x = tl.maximum(tl.minimum(end, N) - begin, 0).to(tl.float64)
    selves_y = tl.maximum(end - tl.maximum(begin, N), 0).to(tl.float64)
    k_at_zero, t_at_zero = self_terms(thetas, along_thetas, shapes, Q, KINDS, C, CPAD, TANGENT)
    total, slope = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    for block in tl.static_range(3):
        # Pairs across are those that rows of x saw.
        tiles_from, tiles_to = (tiles_x if block == 1 else 0), (tiles if block == 1 else tiles_x)
        parts = sums + (2 * C if block == 2 else 0)
        weight = tl.load(weights + b * weight_stride + block * C + component, mask=held, other=0.0)
        k = sum_of_parts(parts, tiles_from, tiles_to, S, C, CPAD, PARTS)
        if DIAGONAL and block < 2:
            k += (selves_y if block == 1 else selves_x) * k_at_zero
        tl.store(totals + (b * 3 + block) * C + component, k, mask=held)
        total += weight * tl.where(held, k, 0.0)
        if THETA:
            k_t = sum_of_parts(parts + C, tiles_from, tiles_to, S, C, CPAD, PARTS)
            if DIAGONAL and block < 2:
                k_t += (selves_y if block == 1 else selves_x) * t_at_zero
            slope += weight * k_t
    tl.store(value + b, tl.sum(total, 0).to(value.dtype.element_ty))
    if THETA:
        tl.store(grad_thetas + b * C + component, slope, mask=held)


@triton.jit(do_not_specialize=["B", "N", "M", "begin", "end", "S", "Q", "weight_stride"])
def kernel_sums_finish_kernel(
    sums, gradients, weights, thetas, along_thetas, shapes, value, totals, grad_thetas, grad_x, grad_y,
    B, N, M, D, begin, end, S, Q, weight_stride, KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr,
    NEEDS: tl.constexpr, TANGENT: tl.constexpr, DIAGONAL: tl.constexpr, BLOCK: tl.constexpr, PARTS: tl.constexpr,
    ELEMENTS: tl.constexpr,
):  # fmt: skip
    """One program for the sums of each problem, then programs for the gradients, as the sweep left both; grad_x:
    [B, N, D], grad_y: [B, M, D]."""
    program = tl.program_id(0)
    if program < B:
        finish_sums(
            sums, weights, thetas, along_thetas, shapes, value, totals, grad_thetas, program.to(tl.int64), N, M, begin,
            end, S, Q, weight_stride, KINDS, C, CPAD, (NEEDS & 4) != 0, TANGENT, DIAGONAL, BLOCK, PARTS,
        )  # fmt: skip
    else:
        at = (program - B).to(tl.int64) * ELEMENTS + tl.arange(0, ELEMENTS)
        of_x, of_y = tl.full([], D, tl.int64) * N, tl.full([], D, tl.int64) * M
        b, rest = at // (of_x + of_y), at % (of_x + of_y)
        in_x = rest < of_x
        inside = (b < B) & (tl.where(in_x, NEEDS & 1, NEEDS & 2) != 0)
        total = tl.zeros([ELEMENTS], tl.float64)
        for split in range(S):
            total += tl.load(gradients + (b * S + split) * (of_x + of_y) + rest, mask=inside, other=0.0)
        if NEEDS & 1:
            rounded = narrowed(total, grad_x.dtype.element_ty)
            tl.store(grad_x + b * of_x + rest, rounded, mask=inside & in_x)
        if NEEDS & 2:
            rounded = narrowed(total, grad_y.dtype.element_ty)
            tl.store(grad_y + b * of_y + rest - of_x, rounded, mask=inside & (rest >= of_x))
