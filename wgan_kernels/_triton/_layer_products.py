"""Products of matrices over a whole batch, with a layer's bias and activation on the way in or out.

A program has a tile of TILE by TILE results and adds up STEP products at a time, of which STAGES steps are loaded
ahead. The order of sums is that of the sizes alone.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, feature_class, float64_of, matmul_precision, narrowed, widened, words, wrap_triton
from ._tiles import ahead, tuned

STEP = 16
SMALL, LARGE = 32, 64  # tiles; with more registers spill, of float64 with large ones
# All that there are: some are spilled otherwise, so that more programs fit on a multiprocessor.
MOST_REGISTERS = 255
PROGRAMS = 128  # about a GPU's worth: with fewer large tiles than these they are small
PART = 256  # rows that are added up at least by one program for a weight's derivatives
# What an activation is applied to: the products' input, or with its derivative their result.
NOTHING, INPUT, RESULT = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
_SCALARS = ["rows", "B", "part_rows", "size_class", "slope_high", "slope_low"]


@triton.jit
def bent(z, slope, t):
    """phi'(z) * t for the activation phi(z) = z where z > 0, slope * z elsewhere; with t = z, phi(z)."""
    # At NaN torch's relu passes its gradient on, and leaky_relu scales it.
    return tl.where(slope == 0, tl.where(z <= 0, 0.0, t), tl.where(z > 0, t, slope * t))


@tuned(ahead(3, 2, maxnreg=MOST_REGISTERS))
@triton.jit(do_not_specialize=_SCALARS)
def layer_kernel(
    a, b, bias, z, out, rows, P, D, size_class, slope_high, slope_low, TRANSPOSED: tl.constexpr, BENDS: tl.constexpr,
    BIASED: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """out = a b^T + bias. a: [rows, D]; b: [P, D], or TRANSPOSED [D, P]; bias: [P]; z, out: [rows, P]."""
    DTYPE: tl.constexpr = out.dtype.element_ty
    slope = narrowed(float64_of(slope_high, slope_low), DTYPE)
    tiles = tl.cdiv(P, TILE)
    row = (tl.program_id(0) // tiles).to(tl.int64) * TILE + tl.arange(0, TILE)[:, None]
    column = (tl.program_id(0) % tiles).to(tl.int64) * TILE + tl.arange(0, TILE)
    total = tl.zeros([TILE, TILE], DTYPE)
    for first in tl.range(0, D, STEP, num_stages=STAGES):
        k = first + tl.arange(0, STEP)
        left = tl.load(a + row * D + k[None, :], mask=(row < rows) & (k < D)[None, :], other=0.0)
        if BENDS == INPUT:
            left = bent(left, slope, left)
        if TRANSPOSED:
            at = k.to(tl.int64)[:, None] * P + column[None, :]
            right = tl.load(b + at, mask=(k < D)[:, None] & (column < P)[None, :], other=0.0)
        else:
            at = column[:, None] * D + k[None, :]
            right = tl.trans(tl.load(b + at, mask=(column < P)[:, None] & (k < D)[None, :], other=0.0))
        total = tl.dot(left, right, total, input_precision=PRECISION, out_dtype=DTYPE)
    if BIASED:
        total += tl.load(bias + column, mask=column < P, other=0.0)[None, :]
    at, inside = row * P + column[None, :], (row < rows) & (column < P)[None, :]
    if BENDS == RESULT:
        total = bent(tl.load(z + at, mask=inside, other=0.0), slope, total)
    tl.store(out + at, total, mask=inside)


@triton.jit
def add_rows(
    total, delta, h, begin, end, p, d, P, D, slope, BENDS: tl.constexpr, PRECISION: tl.constexpr, STEP: tl.constexpr,
    STAGES: tl.constexpr,
):  # fmt: skip
    """total + delta^T h of the rows [begin, end), at p and d. delta: [.., P]; h: [.., D]"""
    for first in tl.range(begin, end, STEP, num_stages=STAGES):
        row = (first + tl.arange(0, STEP)).to(tl.int64)[:, None]
        left = tl.load(delta + row * P + p[None, :], mask=(row < end) & (p < P)[None, :], other=0.0)
        right = tl.load(h + row * D + d[None, :], mask=(row < end) & (d < D)[None, :], other=0.0)
        if BENDS:
            right = bent(right, slope, right)
        total = tl.dot(tl.trans(left), right, total, input_precision=PRECISION, out_dtype=total.dtype)
    return total


# More stages spill registers.
@autotuned(ahead(2, maxnreg=MOST_REGISTERS))
@triton.jit(do_not_specialize=_SCALARS)
def weight_gradient_kernel(
    delta, t, z, parts, bias_parts, rows, B, P, D, part_rows, slope_high, slope_low, JUDGED: tl.constexpr,
    BIASED: tl.constexpr, PRECISION: tl.constexpr, TILE: tl.constexpr, STEP: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """parts = delta^T h over part_rows rows, h that of z or, of the first B rows, t; bias_parts = sums of the others.

    delta: [rows, P]; t: [B, D]; z: [rows, D]; parts: [.., P, D]; bias_parts: [.., P].
    """
    DTYPE: tl.constexpr = delta.dtype.element_ty
    slope = narrowed(float64_of(slope_high, slope_low), DTYPE)
    across = tl.maximum(tl.cdiv(D, TILE), 1)
    tiles = tl.cdiv(P, TILE) * across
    part, tile = tl.program_id(0) // tiles, tl.program_id(0) % tiles
    p = (tile // across).to(tl.int64) * TILE + tl.arange(0, TILE)
    d = (tile % across).to(tl.int64) * TILE + tl.arange(0, TILE)
    begin, end = part * part_rows, tl.minimum(rows, (part + 1) * part_rows)
    total = tl.zeros([TILE, TILE], DTYPE)
    total = add_rows(total, delta, t, begin, tl.minimum(end, B), p, d, P, D, slope, False, PRECISION, STEP, STAGES)
    if JUDGED:
        total = add_rows(total, delta, z, tl.maximum(begin, B), end, p, d, P, D, slope, True, PRECISION, STEP, STAGES)
    at = (part.to(tl.int64) * P + p)[:, None] * D + d[None, :]
    tl.store(parts + at, total.to(parts.dtype.element_ty), mask=(p < P)[:, None] & (d < D)[None, :])
    if BIASED and tile % across == 0:
        sums = tl.zeros([TILE], tl.float64)
        for first in range(tl.maximum(begin, B), end, STEP):
            row = first + tl.arange(0, STEP)[:, None]
            inside = (row < end) & (p < P)[None, :]
            sums += tl.sum(widened(tl.load(delta + row.to(tl.int64) * P + p[None, :], mask=inside, other=0.0)), 0)
        tl.store(bias_parts + part * P + p, narrowed(sums, bias_parts.dtype.element_ty), mask=p < P)


def _precision(x: Tensor) -> str:
    # Not the older allow_tf32, which raises once this is set; both names set what is read here.
    tf32 = torch.backends.cuda.matmul.fp32_precision == "tf32"
    return matmul_precision(x, tf32) if x.dtype == torch.float32 else "ieee"


def _tile(rows: int, columns: int, dtype: torch.dtype) -> int:
    enough = triton.cdiv(rows, LARGE) * triton.cdiv(columns, LARGE) >= PROGRAMS
    return LARGE if enough and dtype != torch.float64 else SMALL


def multiply(
    a: Tensor, b: Tensor, rows: int, *, transposed: bool = False, bias: Tensor | None = None,
    bends: tl.constexpr = NOTHING, slope: float = 1.0, z: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """a b^T + bias of the first rows of a: [.., D]; b: [P, D] or transposed [D, P]; bias: [P]; z: [.., P] -> [rows, P]

    bends: INPUT for a through the activation of this slope, RESULT for its derivative at z times the result.
    """
    P, D = b.shape if not transposed else (b.shape[1], b.shape[0])
    out, tile = a.new_empty((rows, P)), _tile(rows, P, a.dtype)
    programs = triton.cdiv(rows, tile) * triton.cdiv(P, tile)
    if programs > 0:
        wrap_triton(layer_kernel)[(programs,)](
            a, b, a if bias is None else bias, a if z is None else z, out, rows, P, D, feature_class(D),
            *words(slope), TRANSPOSED=transposed, BENDS=bends.value if slope != 1 else 0, BIASED=bias is not None,
            PRECISION=_precision(a), TILE=tile, STEP=STEP,
        )  # fmt: skip
    return out


def weight_gradients(
    delta: Tensor, t: Tensor, z: Tensor, slope: float, needs_bias: bool
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """The sums over rows of delta^T h, [P, D], and of delta but for the first rows, [P], or empty: h = t of these and
    the activation of z of others. delta: [rows, P]; t: [B, D]; z: [rows, D]"""
    (rows, P), (B, D) = delta.shape, t.shape
    tile = _tile(P, D, delta.dtype)
    tiles = triton.cdiv(P, tile) * max(1, triton.cdiv(D, tile))
    parts = max(1, min(triton.cdiv(rows, PART), PROGRAMS // max(1, tiles)))
    part_rows = max(1, triton.cdiv(triton.cdiv(rows, parts), STEP)) * STEP
    parts = max(1, triton.cdiv(rows, part_rows))
    several, dtype = (parts,) if parts > 1 else (), torch.float64 if parts > 1 else delta.dtype
    sums = delta.new_empty((*several, P, D), dtype=dtype)
    bias_sums = delta.new_empty((*several, P if needs_bias else 0), dtype=dtype)
    if tiles > 0:
        wrap_triton(weight_gradient_kernel)[(parts * tiles,)](
            delta, t, z, sums, bias_sums, rows, B, P, D, part_rows, *words(slope), JUDGED=rows > B,
            BIASED=needs_bias, PRECISION=_precision(delta), TILE=tile, STEP=STEP,
        )  # fmt: skip
    return (sums.sum(0).to(delta.dtype), bias_sums.sum(0).to(delta.dtype)) if several else (sums, bias_sums)
