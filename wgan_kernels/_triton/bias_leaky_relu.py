"""bias_leaky_relu and its derivatives, one pass each, over rows: of one channel each, or of whole samples."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import (
    device_of,
    float64_of,
    in_layout_of,
    is_channels_last,
    narrowed,
    operator,
    ordered,
    widened,
    words,
    wrap_triton,
)

CHANNEL_ROW = 128  # elements of a channel that are a row of their own
LONG_ROW = 1024
COLUMN_ROWS = 128  # rows of samples that one program sums up
PARTS = 256  # that the program of a channel adds at a time
# Of sizes only the distance of rows, D, says how memory is aligned; a kernel compiled for any other gains nothing.
_SCALARS = ["rows", "C", "S", "gain_high", "gain_low", "slope_high", "slope_low", "bound_high", "bound_low"]


@triton.jit
def computed(x, DTYPE: tl.constexpr):
    """x, of dtype DTYPE or float64, in the type that DTYPE is computed in."""
    return x.to(tl.float64) if DTYPE == tl.float64 else x.to(tl.float32)


@triton.jit(do_not_specialize=_SCALARS)
def rectify_kernel(
    a, add, y, out, parts, rows, D, C, S, gain_high, gain_low, slope_high, slope_low, bound_high, bound_low,
    HAS_Y: tl.constexpr, HAS_ADD: tl.constexpr, SUMS: tl.constexpr, BY_CHANNEL: tl.constexpr, CLAMPED: tl.constexpr,
    TILE_ROWS: tl.constexpr, TILE_COLUMNS: tl.constexpr, CHUNK: tl.constexpr,
):  # fmt: skip
    """Without y the pass forward, of a = x; with it out = (a + add) * dy/dx. a, y, out: [rows, D]; add: [C].

    BY_CHANNEL: a row is of channel row % C, else an element of channel column // S. parts: [rows, tiles] float64, sums
    of rows, or [chunks, D], sums of CHUNK rows.
    """
    DTYPE: tl.constexpr = out.dtype.element_ty
    gain = computed(float64_of(gain_high, gain_low), DTYPE)
    slope = computed(float64_of(slope_high, slope_low), DTYPE)
    bound = computed(narrowed(float64_of(bound_high, bound_low), DTYPE), DTYPE)
    tiles = tl.cdiv(D, TILE_COLUMNS)
    chunk, tile = (tl.program_id(0) // tiles).to(tl.int64), tl.program_id(0) % tiles
    column = tile.to(tl.int64) * TILE_COLUMNS + tl.arange(0, TILE_COLUMNS)
    total = tl.zeros([TILE_COLUMNS], tl.float64)
    for first in range(0, CHUNK, TILE_ROWS):
        row = chunk * CHUNK + first + tl.arange(0, TILE_ROWS)
        inside = (row < rows)[:, None] & (column < D)[None, :]
        at = row[:, None] * D + column[None, :]
        value = computed(tl.load(a + at, mask=inside, other=0.0), DTYPE)
        if HAS_ADD:
            if BY_CHANNEL:
                value += tl.load(add + row % C, mask=row < rows, other=0.0)[:, None]
            else:
                value += tl.load(add + column // S, mask=column < D, other=0.0)[None, :]
        if HAS_Y:
            result = computed(tl.load(y + at, mask=inside, other=0.0), DTYPE)
            value *= tl.where(result > 0, gain, slope)
            if CLAMPED:
                value = tl.where((result < bound) & (result > -bound), value, 0.0)
        else:
            value *= tl.where(value > 0, gain, slope)
            if CLAMPED:
                value = tl.where(value < -bound, -bound, tl.where(value > bound, bound, value))
        tl.store(out + at, value.to(DTYPE), mask=inside)
        if SUMS:
            if BY_CHANNEL:
                tl.store(parts + row * tiles + tile, tl.sum(widened(value), 1), mask=row < rows)
            else:
                total += tl.sum(widened(value), 0)
    if SUMS and not BY_CHANNEL:
        tl.store(parts + chunk * D + column, total, mask=column < D)


@triton.jit(do_not_specialize=["outer", "C", "inner"])
def add_parts_kernel(parts, grad_bias, outer, C, inner, PARTS: tl.constexpr):
    """One program for each channel. parts: [outer, C, inner] float64; grad_bias: [C]."""
    channel = tl.program_id(0).to(tl.int64)
    total = tl.zeros([PARTS], tl.float64)
    for first in range(0, outer * inner, PARTS):
        k = first + tl.arange(0, PARTS)
        at = ((k // inner).to(tl.int64) * C + channel) * inner + k % inner
        total += tl.load(parts + at, mask=k < outer * inner, other=0.0)
    tl.store(grad_bias + channel, tl.sum(total, 0).to(grad_bias.dtype.element_ty))


def _in_channels(x: Tensor) -> tuple[Tensor, int, int, int]:
    """x, copied where it is neither contiguous nor channels_last, and its sizes in memory, [B, C, S]."""
    if x.dim() < 2:
        return x.contiguous(), x.numel(), 1, 1
    B, C = x.shape[0], x.shape[1]
    S = x.numel() // max(B * C, 1)
    if is_channels_last(x):
        return x, B * S, C, 1
    return x.contiguous(), B, C, S


def _tile(D: int, by_channel: bool) -> tuple[int, int]:
    """Rows and columns of a tile."""
    if by_channel:
        return (1, 2048) if D > LONG_ROW else (8, 256)
    return (8, 256) if D > 64 else (32, 64)


def _rectify(
    a: Tensor, add: Tensor | None, y: Tensor | None, sizes: Sequence[int], settings: Sequence[float | None], sums: bool
) -> tuple[Tensor, Tensor]:
    """The result and, with `sums`, those of the channels. a, y: in one order of memory, of these sizes."""
    B, C, S = sizes
    negative_slope, gain, clamp = settings
    if not sums and add is None:  # channels play no part
        B, C, S = 1, 1, B * C * S
    by_channel = S >= CHANNEL_ROW
    rows, D = (B * C, S) if by_channel else (B, C * S)
    tile_rows, tile_columns = _tile(D, by_channel)
    chunk = COLUMN_ROWS if sums and not by_channel else tile_rows
    wide = torch.promote_types(a.dtype, torch.float32)
    out, tiles, chunks = torch.empty_like(a), triton.cdiv(D, tile_columns), triton.cdiv(rows, chunk)
    parts = a.new_empty(((rows, tiles) if by_channel else (chunks, D)) if sums else (0,), dtype=torch.float64)
    grad_bias = a.new_empty((C if sums else 0,), dtype=wide)
    with device_of(a):
        if out.numel() > 0:
            wrap_triton(rectify_kernel)[(chunks * tiles,)](
                a, a if add is None else add.to(wide).contiguous(), a if y is None else y, out, parts, rows, D, C, S,
                *words(gain), *words(gain * negative_slope), *words(0.0 if clamp is None else clamp),
                HAS_Y=y is not None, HAS_ADD=add is not None, SUMS=sums, BY_CHANNEL=by_channel,
                CLAMPED=clamp is not None, TILE_ROWS=tile_rows, TILE_COLUMNS=tile_columns, CHUNK=chunk,
            )  # fmt: skip
        if sums and C > 0:
            outer, inner = (B, tiles) if by_channel else (chunks, S)
            wrap_triton(add_parts_kernel)[(C,)](parts, grad_bias, outer, C, inner, PARTS=PARTS)
    return out, grad_bias


@operator
def bias_leaky_relu(x: Tensor, bias: Tensor | None, negative_slope: float, gain: float, clamp: float | None) -> Tensor:
    """x: [B, C, ...]; bias: [C] -> [B, C, ...]"""
    rows, *sizes = _in_channels(x)
    y, _ = _rectify(rows, bias, None, sizes, (negative_slope, gain, clamp), False)
    return in_layout_of(x, y)


@operator
def bias_leaky_relu_backward(
    grad_y: Tensor, y: Tensor, negative_slope: float, gain: float, clamp: float | None, needs_bias: bool
) -> tuple[Tensor, Tensor]:
    """grad_y, y: [B, C, ...] -> grad_x: [B, C, ...]; grad_bias: [C], or empty"""
    rows, *sizes = _in_channels(y)
    settings = negative_slope, gain, clamp
    grad_x, grad_bias = _rectify(ordered(grad_y, rows), None, rows, sizes, settings, needs_bias)
    return in_layout_of(y, grad_x), grad_bias


@operator
def bias_leaky_relu_double_backward(
    grad_grad_x: Tensor, grad_grad_bias: Tensor | None, y: Tensor, negative_slope: float, gain: float,
    clamp: float | None,
) -> Tensor:  # fmt: skip
    """grad_grad_x, y: [B, C, ...]; grad_grad_bias: [C] -> [B, C, ...]"""
    rows, *sizes = _in_channels(y)
    settings = negative_slope, gain, clamp
    grad_grad_y, _ = _rectify(ordered(grad_grad_x, rows), grad_grad_bias, rows, sizes, settings, False)
    return in_layout_of(y, grad_grad_y)
