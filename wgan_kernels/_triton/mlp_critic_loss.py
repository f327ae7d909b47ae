"""mlp_critic_loss: a launch for each layer and sweep, of all samples at once, and four more around them.

Products are Triton's too, not torch.mm with kernels between: with bias, activation and mask in one launch there are
half as many, and TF32 where torch may use it. cuBLAS would promise the same bits only for one stream and workspace, and
Inductor might put other products in its place; these have one order, eager, compiled and captured.
Not run on hardware.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import device_of, float64_of, narrowed, operator, widened, words, wrap_triton
from ._layer_products import INPUT, RESULT, bent, multiply, weight_gradients
from .norm_penalty import excess, first_factor, row_factor

ROWS, COLUMNS = 16, 64  # scores of a program, that many at a time
BLOCK = 1024
SUMMED = 256  # samples that the last program adds at a time
_SCALARS = ["rows", "B", "slope_high", "slope_low", "mean_high", "mean_low"]
_SCALARS += ["target_high", "target_low", "factor_high", "factor_low"]


@triton.jit(do_not_specialize=_SCALARS)
def scores_kernel(
    z, delta, sums, rows, B, P, slope_high, slope_low, mean_high, mean_low, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    """The derivatives by z of the score at the first B rows, of -mean times it at the next B, of mean times it at the
    last; and sums of scores. z, delta: [rows, P]; sums: [rows] float64."""
    DTYPE: tl.constexpr = z.dtype.element_ty
    slope, mean = narrowed(float64_of(slope_high, slope_low), DTYPE), narrowed(float64_of(mean_high, mean_low), DTYPE)
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    seed = tl.where(row < B, 1.0, tl.where(row < 2 * B, -mean, mean)).to(DTYPE)
    total = tl.zeros([ROWS], tl.float64)
    for first in range(0, P, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        at, inside = row[:, None] * P + column[None, :], (row < rows)[:, None] & (column < P)[None, :]
        value = tl.load(z + at, mask=inside, other=0.0)
        tl.store(delta + at, bent(value, slope, seed[:, None] + tl.zeros_like(value)), mask=inside)
        total += tl.sum(widened(bent(value, slope, value)), 1)
    tl.store(sums + row, total, mask=row < rows)


@triton.jit(do_not_specialize=_SCALARS)
def penalise_kernel(
    grad, norms, v, D, target_high, target_low, factor_high, factor_low, ONE_SIDED: tl.constexpr,
    NEEDS_GRADS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A program for each sample: its norm, and v, the penalty's derivative by grad. grad, v: [B, D]; norms: [B]."""
    row = tl.program_id(0).to(tl.int64)
    squares = tl.zeros([BLOCK], tl.float64)
    for first in range(0, D, BLOCK):
        column = first + tl.arange(0, BLOCK)
        g = widened(tl.load(grad + row * D + column, mask=column < D, other=0.0))
        squares += g * g
    norm = tl.sqrt(tl.sum(squares, 0))
    tl.store(norms + row, norm)
    if NEEDS_GRADS:
        target, factor = float64_of(target_high, target_low), float64_of(factor_high, factor_low)
        scale = factor * first_factor(norm, target, ONE_SIDED)
        for first in range(0, D, BLOCK):
            column = first + tl.arange(0, BLOCK)
            g = widened(tl.load(grad + row * D + column, mask=column < D, other=0.0))
            tl.store(v + row * D + column, narrowed(scale * g, v.dtype.element_ty), mask=column < D)


@triton.jit(do_not_specialize=_SCALARS)
def critic_loss_kernel(
    norms, sums, penalty, wasserstein, B, target_high, target_low, factor_high, factor_low, mean_high, mean_low,
    ONE_SIDED: tl.constexpr, JUDGED: tl.constexpr, SUMMED: tl.constexpr,
):  # fmt: skip
    """One program. norms: [B]; sums: [3 B], of mixed, real and fake samples; penalty, wasserstein: []."""
    target, factor = float64_of(target_high, target_low), float64_of(factor_high, factor_low)
    squares, difference = tl.zeros([SUMMED], tl.float64), tl.zeros([SUMMED], tl.float64)
    for first in range(0, B, SUMMED):
        row = first + tl.arange(0, SUMMED)
        e = excess(tl.load(norms + row, mask=row < B, other=0.0), target, ONE_SIDED)
        squares += tl.where(row < B, e * e, 0.0)
        if JUDGED:
            difference += tl.load(sums + B + row, mask=row < B, other=0.0)
            difference -= tl.load(sums + 2 * B + row, mask=row < B, other=0.0)
    tl.store(penalty, narrowed(factor * tl.sum(squares, 0), penalty.dtype.element_ty))
    total = tl.sum(difference, 0)
    if JUDGED:
        total *= float64_of(mean_high, mean_low)
    tl.store(wasserstein, narrowed(total, wasserstein.dtype.element_ty))


def _scores(z: Tensor, slope: float, B: int, mean: float) -> tuple[Tensor, Tensor]:
    """The derivatives by z: [rows, P], and the sums of scores: [rows] float64."""
    rows, P = z.shape
    delta, sums = torch.empty_like(z), z.new_empty((rows,), dtype=torch.float64)
    if rows > 0:
        wrap_triton(scores_kernel)[(triton.cdiv(rows, ROWS),)](
            z, delta, sums, rows, B, P, *words(slope), *words(mean), ROWS=ROWS, COLUMNS=COLUMNS
        )
    return delta, sums


@operator
def mlp_critic_loss(
    mixed: Tensor, real: Tensor | None, fake: Tensor | None, weights: Sequence[Tensor], biases: Sequence[Tensor],
    slopes: Sequence[float], target: float, one_sided: bool, reduction: int, weight: float, needs_grads: bool,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:  # fmt: skip
    """As ops/_schemas.py has it."""
    judged, (B, D), depth = real is not None and fake is not None, mixed.shape, len(weights)
    x = torch.cat([mixed, real, fake]) if judged else mixed.contiguous()
    weights = [each.contiguous() for each in weights]
    offsets = [each.contiguous() if each.numel() > 0 else None for each in biases]
    scores = B * weights[-1].shape[0]
    penalty, wasserstein = mixed.new_empty(()), mixed.new_empty(())
    norms = mixed.new_empty((B,), dtype=torch.float64)
    settings = *words(target), *words(row_factor(B, reduction, weight))
    with device_of(mixed):
        zs, before = [x], [1.0, *slopes]
        for W, bias, slope in zip(weights, offsets, before):
            zs.append(multiply(zs[-1], W, x.shape[0], bias=bias, bends=INPUT, slope=slope))
        delta, sums = _scores(zs[-1], slopes[-1], B, 1 / scores if scores else 0.0)
        deltas, rows = [delta], x.shape[0] if needs_grads else B
        for W, z, slope in zip(weights[:0:-1], zs[-2::-1], slopes[-2::-1]):
            deltas.append(multiply(deltas[-1], W, rows, transposed=True, bends=RESULT, slope=slope, z=z))
        grad = multiply(deltas[-1], weights[0], B, transposed=True)
        v = torch.empty_like(grad) if needs_grads else grad
        if B > 0:
            wrap_triton(penalise_kernel)[(B,)](
                grad, norms, v, D, *settings, ONE_SIDED=one_sided, NEEDS_GRADS=needs_grads, BLOCK=BLOCK
            )
        wrap_triton(critic_loss_kernel)[(1,)](
            norms, sums, penalty, wasserstein, B, *settings, *words(1 / scores if scores else math.nan),
            ONE_SIDED=one_sided, JUDGED=judged, SUMMED=SUMMED,
        )  # fmt: skip
        grads, t = [], v
        for at in range(depth if needs_grads else 0):
            needs_bias = judged and offsets[at] is not None
            grads.append(weight_gradients(deltas[depth - 1 - at], t, zs[at], before[at], needs_bias))
            if at + 1 < depth:
                t = multiply(t, weights[at], B, bends=RESULT, slope=slopes[at], z=zs[at + 1])
    return penalty, wasserstein, norms, [by for by, _ in grads], [by for _, by in grads] if judged else []
