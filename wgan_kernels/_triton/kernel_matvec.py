"""kernel_matvec: a program owns a tile of rows and some columns of v, and goes through its share of the points of y.

As for kernel_sums, distances are in float32 where that leaves them enough digits, and a second launch does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._kernel_functions import POLYNOMIAL, kernel_term, mixture
from ._launch import autotuned, device_of, feature_class, matmul_precision, operator, wrap_triton
from ._tiles import (
    BLOCK,
    FEATURES,
    PRODUCT_CONFIGS,
    PROGRAMS,
    ahead,
    difference_tile,
    product_tile,
    too_few_digits,
    tuned,
)

MOST_COLUMNS = 32  # of v that a program multiplies with


@triton.jit
def weighted_terms(
    s, products, counted, thetas, shapes, Q, weights, KINDS: tl.constexpr, C: tl.constexpr, TERM: tl.constexpr
):  # fmt: skip
    """sum_c weights[c] * term_c, of pairs that count. s, products, counted: [BLOCK, BLOCK]; thetas: [C, Q]; shapes,
    weights: [C]"""
    total = tl.zeros_like(s)
    for c in tl.static_range(C):
        of = products if (KINDS >> (32 * c)) & 15 == POLYNOMIAL else s
        term = kernel_term(
            of, tl.load(thetas + c * Q), tl.load(shapes + c), (KINDS >> (32 * c)) & 0xFFFFFFFF, TERM
        )  # fmt: skip
        total += tl.load(weights + c).to(s.dtype) * term
    return tl.where(counted, total, 0.0)


@triton.jit(do_not_specialize=["N", "M", "begin", "end", "S", "Q", "size_class"])
def matvec_sweep(
    points, v, weights, thetas, shapes, parts, flags, N, M, D, P, begin, end, S, Q, size_class,
    KINDS: tl.constexpr, OF: tl.constexpr, C: tl.constexpr, TERM: tl.constexpr, DIAGONAL: tl.constexpr,
    EXACT: tl.constexpr, FLAGGED: tl.constexpr, PRECISION: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr,
    COLUMNS: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """points: [B, N + M, D]; v: [B, M, P]; weights: [C] float64; thetas: [C, Q]; shapes: [C];
    parts: [S, B, end - begin, P] float64; flags: one int32 for each program."""
    program = tl.program_id(0)
    if FLAGGED:
        if tl.load(flags + program) == 0:
            return
    tiles, chunks = tl.cdiv(end - begin, BLOCK), tl.cdiv(P, COLUMNS)
    split, chunk, tile = program % S, program // S % chunks, program // S // chunks % tiles
    b = (program // S // chunks // tiles).to(tl.int64)
    problems = tl.num_programs(0) // (S * chunks * tiles)
    points, v = points + b * (N + M) * D, v + b * M * P
    i, i_limit = begin + tile * BLOCK, end
    row, column = i + tl.arange(0, BLOCK), chunk * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([BLOCK, COLUMNS], tl.float64)
    largest, origin = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    for j in range(split * BLOCK, M, S * BLOCK):
        other = j + tl.arange(0, BLOCK)
        if EXACT:
            s, products = difference_tile(points, i, i_limit, N + j, N + M, D, OF, BLOCK, STAGES)
        else:
            s, products, norm, origin = product_tile(
                points, i, i_limit, N + j, N + M, D, OF, BLOCK, FEATURES, PRECISION, STAGES
            )  # fmt: skip
            largest = tl.maximum(largest, norm)
        counted = (row < i_limit)[:, None] & (other < M)[None, :]
        if not DIAGONAL:
            counted &= row[:, None] != other[None, :]
        w = weighted_terms(s, products, counted, thetas, shapes, Q, weights, KINDS, C, TERM)
        inside = (other < M)[:, None] & (column < P)[None, :]
        v_j = tl.load(v + other.to(tl.int64)[:, None] * P + column[None, :], mask=inside, other=0.0)
        if EXACT:
            total += tl.dot(w, v_j.to(tl.float64), out_dtype=tl.float64)
        else:
            total += tl.dot(w, v_j, input_precision=PRECISION).to(tl.float64)
    at = ((split * problems + b) * (end - begin) + (row - begin).to(tl.int64)[:, None]) * P + column[None, :]
    tl.store(parts + at, total, mask=(row < i_limit)[:, None] & (column < P)[None, :])
    if not EXACT:
        tl.store(flags + program, too_few_digits(largest, origin, thetas, shapes, KINDS, C, Q).to(tl.int32))


# In TF32 all others spill registers.
kernel_matvec_kernels = {
    "tf32x3": tuned(PRODUCT_CONFIGS["tf32x3"])(matvec_sweep),
    "tf32": autotuned(ahead(2))(matvec_sweep),
}
kernel_matvec_exact_kernel = tuned(ahead(1, 3))(matvec_sweep)
kernel_matvec_flagged_kernel = autotuned(ahead(1))(matvec_sweep)


@operator
def kernel_matvec(
    x: Tensor, y: Tensor, v: Tensor, weights: Tensor, params: Tensor, kinds: Sequence[int], shapes: Sequence[float],
    allow_tf32: bool, term: int, begin: int, end: int, diagonal: bool,
) -> Tensor:  # fmt: skip
    """As the schema of kernel_matvec."""
    N, M, D, P, C = x.shape[-2], y.shape[-2], x.shape[-1], v.shape[-1], len(kinds)
    problems, rows = x.shape[:-2], (N if end < 0 else end) - begin
    B = problems[0] if problems else 1
    columns = max(16, min(MOST_COLUMNS, triton.next_power_of_2(max(P, 1))))
    programs = B * triton.cdiv(rows, BLOCK) * triton.cdiv(P, columns)
    S = max(1, min(triton.cdiv(M, BLOCK), PROGRAMS // max(1, programs)))
    parts = x.new_empty((S, *problems, rows, P), dtype=torch.float64)
    if programs > 0:
        points = torch.cat([x, y], -2).contiguous()
        flags = x.new_empty((programs * S,), dtype=torch.int32)
        params = params.contiguous()
        of = mixture(kinds, shapes, params)
        arguments = (points, v.contiguous(), weights.contiguous(), params, of.shapes, parts, flags, N, M, D, P, begin,
                     begin + rows, S, params.shape[1], feature_class(D))  # fmt: skip
        precision = matmul_precision(x, allow_tf32)
        settings = {"KINDS": of.kinds, "OF": of.of, "C": C, "TERM": term, "DIAGONAL": diagonal, "BLOCK": BLOCK,
                    "PRECISION": precision, "COLUMNS": columns, "FEATURES": FEATURES}  # fmt: skip
        exact = x.dtype == torch.float64 or of.needs_float64
        with device_of(x):
            kernel = kernel_matvec_exact_kernel if exact else kernel_matvec_kernels[precision]
            wrap_triton(kernel)[(programs * S,)](*arguments, EXACT=exact, FLAGGED=False, **settings)
            if not exact:
                kernel = kernel_matvec_flagged_kernel
                wrap_triton(kernel)[(programs * S,)](*arguments, EXACT=True, FLAGGED=True, **settings)
    return parts.sum(0).to(v.dtype)
