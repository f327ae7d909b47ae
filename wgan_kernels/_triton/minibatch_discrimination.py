"""minibatch_discrimination: a program owns some samples and numbers of one feature, and goes over all other samples.

Each pair is formed twice, once for each of its samples: sums then have a fixed order without memory for parts of them.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, device_of, narrowed, operator, size_class, wrap_triton

VALUE, BACKWARD, DOUBLE_BACKWARD = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
BLOCK = 16  # samples of a program, and others that it meets at a time
MOST_TERMS = 16  # numbers of a sample that are loaded at a time


@triton.jit
def wide(x):
    """x as it is computed with: float64, or float32 for everything else."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32)


@triton.jit
def signed(difference, c):
    """c * sign(difference), with sign(0) = 0."""
    return tl.where(difference == 0, 0.0, tl.where(difference < 0, -c, c))


@triton.jit
def pair_differences(of, i, j, feature, first, B, F, K, BLOCK: tl.constexpr, TERMS: tl.constexpr):
    """of[i, feature, k] - of[j, feature, k] of the numbers from `first` on: [BLOCK, BLOCK, TERMS], 0 past the end."""
    k = first + tl.arange(0, TERMS)
    row, column = i + tl.arange(0, BLOCK), j + tl.arange(0, BLOCK)
    a = of + (row.to(tl.int64)[:, None] * F + feature) * K + k[None, :]
    b = of + (column.to(tl.int64)[:, None] * F + feature) * K + k[None, :]
    left = wide(tl.load(a, mask=(row < B)[:, None] & (k < K)[None, :], other=0.0))
    right = wide(tl.load(b, mask=(column < B)[:, None] & (k < K)[None, :], other=0.0))
    return left[:, None, :] - right[None, :, :]


@triton.jit
def weights_of(grad_o, sample, feature, begin, end, F):
    """grad_o of samples, 0 of those whose o was not asked for."""
    at = (sample - begin).to(tl.int64) * F + feature
    return wide(tl.load(grad_o + at, mask=(sample >= begin) & (sample < end), other=0.0))


# With as many registers as there are: some are spilled otherwise, so that more programs fit on a multiprocessor.
@autotuned([triton.Config({}, num_warps=4, maxnreg=248)])
@triton.jit(do_not_specialize=["B", "F", "K", "begin", "end", "first_row", "rows"])
def minibatch_discrimination_kernel(
    m, along, grad_o, sums, grad_m, B, F, K, begin, end, first_row, rows,
    PASS: tl.constexpr, BLOCK: tl.constexpr, TERMS: tl.constexpr,
):  # fmt: skip
    """m, along, grad_m: [B, F, K]; grad_o, sums: [end - begin, F]; of the samples [first_row, first_row + rows)."""
    chunks = tl.maximum(tl.cdiv(K, TERMS), 1) if PASS != VALUE else 1
    tiles = tl.cdiv(rows, BLOCK)
    chunk, tile = tl.program_id(0) % chunks, tl.program_id(0) // chunks % tiles
    feature = tl.program_id(0) // chunks // tiles
    i = first_row + tile * BLOCK
    row = i + tl.arange(0, BLOCK)
    asked_for = (i < end) & (i + BLOCK > begin)
    first, last = tl.where(asked_for, 0, begin), tl.where(asked_for, B, end)
    total = tl.zeros([BLOCK], tl.float64)
    grads = tl.zeros([BLOCK, TERMS], tl.float64)
    for j in range(first, last, BLOCK):
        column = j + tl.arange(0, BLOCK)
        distance = tl.zeros([BLOCK, BLOCK], tl.float64 if m.dtype.element_ty == tl.float64 else tl.float32)
        slope = tl.zeros_like(distance)
        for k in range(0, K, TERMS):
            difference = pair_differences(m, i, j, feature, k, B, F, K, BLOCK, TERMS)
            distance += tl.sum(tl.abs(difference), 2)
            if PASS == DOUBLE_BACKWARD:
                u = pair_differences(along, i, j, feature, k, B, F, K, BLOCK, TERMS)
                slope += tl.sum(signed(difference, u), 2)
        term = tl.exp(-distance)
        if PASS == DOUBLE_BACKWARD:
            term = -term * slope
        counted = (row < B)[:, None] & (column < last)[None, :] & (row[:, None] != column[None, :])
        term = tl.where(counted, term, 0.0)
        total += tl.sum(term, 1).to(tl.float64)
        if PASS != VALUE:
            w = weights_of(grad_o, row, feature, begin, end, F)[:, None]
            w += weights_of(grad_o, column, feature, begin, end, F)[None, :]
            difference = pair_differences(m, i, j, feature, chunk * TERMS, B, F, K, BLOCK, TERMS)
            c = tl.where(counted, -term * w, 0.0)[:, :, None] + tl.zeros_like(difference)
            grads += tl.sum(signed(difference, c), 1).to(tl.float64)
    if PASS != BACKWARD:
        at = (row - begin).to(tl.int64) * F + feature
        inside = (row >= begin) & (row < end) & (chunk == 0)
        tl.store(sums + at, narrowed(total, sums.dtype.element_ty), mask=inside)
    if PASS != VALUE:
        k = chunk * TERMS + tl.arange(0, TERMS)
        at = (row.to(tl.int64)[:, None] * F + feature) * K + k[None, :]
        tl.store(grad_m + at, narrowed(grads, grad_m.dtype.element_ty), mask=(row < B)[:, None] & (k < K)[None, :])


def _discriminate(
    m: Tensor, along: Tensor, grad_o: Tensor, sums: Tensor, grad_m: Tensor, begin: int, end: int, of_pass: Any
) -> None:
    B, F, K = m.shape
    terms = min(size_class(K) or MOST_TERMS, MOST_TERMS)
    first_row, rows, chunks = 0, B, max(1, triton.cdiv(K, terms))
    if of_pass == VALUE:
        first_row, rows, chunks = begin, end - begin, 1
    programs = F * triton.cdiv(rows, BLOCK) * chunks
    if programs > 0:
        with device_of(m):
            wrap_triton(minibatch_discrimination_kernel)[(programs,)](
                m, along, grad_o, sums, grad_m, B, F, K, begin, end, first_row, rows,
                PASS=of_pass.value, BLOCK=BLOCK, TERMS=terms,
            )  # fmt: skip


@operator
def minibatch_discrimination(m: Tensor, begin: int, end: int) -> Tensor:
    """m: [B, F, K] -> [end - begin, F]"""
    m, end = m.contiguous(), m.shape[0] if end < 0 else end
    o = m.new_empty((end - begin, m.shape[1]))
    _discriminate(m, m, o, o, m, begin, end, VALUE)
    return o


@operator
def minibatch_discrimination_backward(grad_o: Tensor, m: Tensor, begin: int, end: int) -> Tensor:
    """grad_o: [end - begin, F]; m: [B, F, K] -> [B, F, K]"""
    m, grad_o, end = m.contiguous(), grad_o.contiguous(), m.shape[0] if end < 0 else end
    grad_m = m.new_empty(m.shape)
    _discriminate(m, m, grad_o, grad_o, grad_m, begin, end, BACKWARD)
    return grad_m


@operator
def minibatch_discrimination_double_backward(
    grad_grad_m: Tensor, grad_o: Tensor, m: Tensor, begin: int, end: int
) -> tuple[Tensor, Tensor]:
    """grad_grad_m, m: [B, F, K]; grad_o: [end - begin, F] -> [end - begin, F]; [B, F, K]"""
    m, grad_o, end = m.contiguous(), grad_o.contiguous(), m.shape[0] if end < 0 else end
    grad_grad_o, grad_m = grad_o.new_empty(grad_o.shape), m.new_empty(m.shape)
    _discriminate(m, grad_grad_m.contiguous(), grad_o, grad_grad_o, grad_m, begin, end, DOUBLE_BACKWARD)
    return grad_grad_o, grad_m
