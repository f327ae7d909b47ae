"""kernel_sums and its two derivatives: one sweep over pairs of tiles, and one that adds up what its programs left.

float64 points are swept by differences. Others are swept by matrix products in float32; a program that meets distances
for which those have too few digits says so, and a second launch, in which the others have nothing to do, does its work
by differences.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._kernel_functions import pack_kinds
from ._launch import autotuned, device_of, feature_class, matmul_precision, operator, wrap_triton
from ._pair_finish import FINISH_ELEMENTS, FINISH_PARTS, kernel_sums_finish_kernel
from ._pair_sweep import (
    add_differences,
    add_products,
    clear_rows,
    columns_to_visit,
    counted_pairs,
    finish_products,
    pair_terms,
)
from ._tiles import (
    BLOCK,
    FEATURES,
    PRODUCTS,
    PROGRAMS,
    ahead,
    difference_along,
    difference_tile,
    distance_limit,
    product_along,
    product_tile,
    tile_range,
    tuned,
)

_X, _Y, _PARAMS = 1, 2, 4


@triton.jit(do_not_specialize=["N", "M", "begin", "end", "S", "Q", "weight_stride", "size_class"])
def sweep(
    points, along, weights, thetas, along_thetas, sums, gradients, flags, N, M, D, begin, end, S, Q, weight_stride,
    size_class, KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr, NEEDS: tl.constexpr,
    TANGENT: tl.constexpr, EXACT: tl.constexpr, FLAGGED: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK: tl.constexpr, FEATURES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """points, along: [B, N + M, D]; weights: [3, C] or [B, 3, C] float64; thetas: [C, Q]; along_thetas: [C];
    sums: [B, tiles, S, 4, C] float64, of k and k_t, of pairs within a set and across; gradients: [B, S, N + M, D]
    float64; flags: [B, tiles, S] int32."""
    program = tl.program_id(0)
    if FLAGGED:
        if tl.load(flags + program) == 0:
            return
    tiles_x = tl.cdiv(N, BLOCK)
    tiles = tiles_x + tl.cdiv(M, BLOCK)
    split, tile, b = program % S, program // S % tiles, (program // S // tiles).to(tl.int64)
    first, weights = b * (N + M) * D, weights + b * weight_stride
    points, along, gradients = points + first, along + first, gradients + (b * S + split) * (N + M) * D
    of_y = tile >= tiles_x
    owned = tl.where(of_y, NEEDS & 2, NEEDS & 1) != 0
    i, i_limit = tile_range(tile, N, M, BLOCK)
    owned_limit = tl.where(owned, i_limit, 0)
    lower, upper = columns_to_visit(tile, i, tl.minimum(i + BLOCK, i_limit) - 1, N, M, begin, end, owned, BLOCK)
    within_k, within_t = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    across_k, across_t = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    w_sums, along_w_sums = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    largest = tl.full([], 0.0, tl.float32)
    if NEEDS & 3:
        clear_rows(gradients, i, owned_limit, D, BLOCK, FEATURES)
        tl.debug_barrier()
    for other in range(lower + split, upper, S):
        j, j_limit = tile_range(other, N, M, BLOCK)
        across = (other >= tiles_x) != of_y
        if EXACT:
            s = difference_tile(points, i, i_limit, j, j_limit, D, BLOCK, STAGES)
            along_s = difference_along(points, along, i, i_limit, j, j_limit, D, BLOCK) if TANGENT else s
        else:
            s, norm = product_tile(points, i, i_limit, j, j_limit, D, BLOCK, FEATURES, PRECISION, STAGES)
            largest = tl.maximum(largest, norm)
            along_s = s
            if TANGENT:
                along_s = product_along(points, along, i, i_limit, j, j_limit, D, BLOCK, FEATURES, PRECISION)
        row, column = i + tl.arange(0, BLOCK), j + tl.arange(0, BLOCK)
        counted = counted_pairs(row, column, i_limit, j_limit, begin, end, owned_limit)
        block = tl.where(across, 2, tl.where(of_y, 1, 0))
        k_sums, t_sums, w, along_w = pair_terms(
            s, along_s, counted, thetas, along_thetas, Q, weights + block * C, tl.where(across, 1.0, 2.0),
            KINDS, C, CPAD, (NEEDS & 3) != 0, (NEEDS & 4) != 0, TANGENT,
        )  # fmt: skip
        # Pairs of a set with itself count from both ends; here some are seen from one.
        times = tl.where(across | owned, 1.0, 2.0).to(tl.float64)
        within_k += tl.where(across, 0.0, times) * k_sums
        within_t += tl.where(across, 0.0, times) * t_sums
        across_k += tl.where(across, times, 0.0) * k_sums
        across_t += tl.where(across, times, 0.0) * t_sums
        if NEEDS & 3:
            if EXACT:
                add_differences(
                    points, along, w, along_w, i, i_limit, j, j_limit, gradients, owned_limit, D, TANGENT, BLOCK
                )  # fmt: skip
            else:
                w_sums += tl.sum(w, 1).to(tl.float64)
                along_w_sums += tl.sum(along_w, 1).to(tl.float64)
                add_products(
                    points, along, w, along_w, i, i_limit, j, j_limit, gradients, owned_limit, D, TANGENT,
                    BLOCK, FEATURES, PRECISION,
                )  # fmt: skip
            # What is added to next was written by this program, though perhaps by another of its threads.
            tl.debug_barrier()
    component = tl.arange(0, CPAD)
    at = sums + program.to(tl.int64) * 4 * C + component
    tl.store(at, within_k, mask=component < C)
    tl.store(at + C, within_t, mask=component < C)
    tl.store(at + 2 * C, across_k, mask=component < C)
    tl.store(at + 3 * C, across_t, mask=component < C)
    if not EXACT:
        if NEEDS & 3:
            finish_products(
                points, along, w_sums, along_w_sums, i, i_limit, gradients, owned_limit, D, TANGENT, BLOCK, FEATURES
            )  # fmt: skip
        tl.store(flags + program, (largest > distance_limit(thetas, KINDS, C, Q)).to(tl.int32))


kernel_sums_kernels = {precision: tuned(configs)(sweep) for precision, configs in PRODUCTS.items()}
kernel_sums_exact_kernel = tuned(ahead(2, 1, 3))(sweep)
# Products of a tangent load nothing ahead: their registers would spill.
kernel_sums_tangent_kernel = autotuned(ahead(1, num_warps=8, num_stages=1))(sweep)
kernel_sums_exact_tangent_kernel = tuned(ahead(2, 1, 3, num_warps=8))(sweep)
# Timed where no program has anything to do, they would be tuned for that.
kernel_sums_flagged_kernel = autotuned(ahead(2))(sweep)
kernel_sums_flagged_tangent_kernel = autotuned(ahead(2, num_warps=8))(sweep)


def _stacked(x: Tensor, y: Tensor) -> Tensor:
    """[x; y] of each problem, dense."""
    return torch.cat([x, y], -2).contiguous()


def _sweep(
    x: Tensor, y: Tensor, along: Tensor | None, weights: Tensor, params: Tensor, along_params: Tensor | None,
    kinds: Sequence[int], allow_tf32: bool, rows: tuple[int, int], diagonal: bool, needs: int, dtype: torch.dtype,
) -> tuple[Tensor, ...]:  # fmt: skip
    """value, sums, grad_x, grad_y (of dtype), and grad_params by problem; or the derivatives of all these.

    x: [N, D] or [B, N, D]; y: [.., M, D]; along: [.., N + M, D]; weights: [3, C] or [B, 3, C]; params, along_params:
    [C, Q]
    """
    N, M, D, C = x.shape[-2], y.shape[-2], x.shape[-1], len(kinds)
    problems, Q = x.shape[:-2], params.shape[1]
    B = problems[0] if problems else 1
    begin, end = rows[0], N + M if rows[1] < 0 else rows[1]
    points, weights, params = _stacked(x, y), weights.contiguous(), params.contiguous()
    along_thetas = params if along_params is None else along_params[:, 0].contiguous()
    tangent, along = along is not None, points if along is None else along
    tiles = triton.cdiv(N, BLOCK) + triton.cdiv(M, BLOCK)
    S = max(1, min(tiles, PROGRAMS // max(1, B * tiles)))
    programs = B * tiles * S
    gradient = needs & (_X | _Y)
    sums = x.new_empty((programs, 4, C), dtype=torch.float64)
    gradients = x.new_empty((B, S, N + M, D) if gradient else (1,), dtype=torch.float64)
    flags = x.new_empty((programs,), dtype=torch.int32)
    totals = x.new_empty((*problems, 3, C), dtype=torch.float64)
    value = x.new_empty(problems, dtype=torch.promote_types(x.dtype, torch.float32))
    grad_thetas = x.new_empty((B, C) if needs & _PARAMS else (0,), dtype=torch.float64)
    grad_x = x.new_empty(x.shape if needs & _X else (0,), dtype=dtype)
    grad_y = x.new_empty(y.shape if needs & _Y else (0,), dtype=dtype)
    common = {"KINDS": pack_kinds(kinds), "C": C, "CPAD": triton.next_power_of_2(C), "NEEDS": needs,
              "TANGENT": tangent, "BLOCK": BLOCK}  # fmt: skip
    weight_stride = 3 * C if weights.numel() != 3 * C else 0
    with device_of(x):
        if programs > 0:
            exact = x.dtype == torch.float64
            # Second derivatives are rare: that they take no TF32 saves a kernel.
            precision = matmul_precision(x, allow_tf32 and not tangent)
            settings = {"FLAGGED": False, "PRECISION": precision, "FEATURES": FEATURES, **common}
            arguments = (points, along, weights, params, along_thetas, sums, gradients, flags, N, M, D, begin,
                         end, S, Q, weight_stride, feature_class(D))  # fmt: skip
            if exact:
                kernel = kernel_sums_exact_tangent_kernel if tangent else kernel_sums_exact_kernel
            else:
                kernel = kernel_sums_tangent_kernel if tangent else kernel_sums_kernels[precision]
                wrap_triton(kernel)[(programs,)](*arguments, EXACT=False, **settings)
                kernel = kernel_sums_flagged_tangent_kernel if tangent else kernel_sums_flagged_kernel
                settings["FLAGGED"] = True
            wrap_triton(kernel)[(programs,)](*arguments, EXACT=True, **settings)
        if B > 0:
            elements = B * (N + M) * D if gradient else 0
            wrap_triton(kernel_sums_finish_kernel)[(B + triton.cdiv(elements, FINISH_ELEMENTS),)](
                sums, gradients, weights, params, along_thetas, value, totals, grad_thetas, grad_x, grad_y,
                B, N, M, D, begin, end, S, Q, weight_stride, DIAGONAL=diagonal, PARTS=FINISH_PARTS,
                ELEMENTS=FINISH_ELEMENTS, **common,
            )  # fmt: skip
    return value, totals, grad_x, grad_y, grad_thetas


def _grad_params(grad_thetas: Tensor, params: Tensor, needs: int, problems: Sequence[int]) -> Tensor:
    """[*problems, C, Q] from [B, C]: only the first parameter of a component is known to the kernels."""
    if not needs & _PARAMS:
        return params.new_empty((0,))
    grads = grad_thetas.reshape(*problems, params.shape[0], 1)
    return torch.nn.functional.pad(grads, (0, params.shape[1] - 1)) if params.shape[1] > 1 else grads


@operator
def kernel_sums(
    x: Tensor, y: Tensor, weights: Tensor, params: Tensor, kinds: Sequence[int], allow_tf32: bool, begin: int, end: int,
    diagonal: bool, needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums."""
    wide = torch.promote_types(x.dtype, torch.float32)
    results = _sweep(x, y, None, weights, params, None, kinds, allow_tf32, (begin, end), diagonal, needs, wide)
    return *results[:4], _grad_params(results[4], params, needs, x.shape[:-2])


@operator
def kernel_sums_backward(
    grad_sums: Tensor, x: Tensor, y: Tensor, params: Tensor, kinds: Sequence[int], allow_tf32: bool, begin: int,
    end: int, diagonal: bool, needs: int,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums_backward."""
    results = _sweep(x, y, None, grad_sums, params, None, kinds, allow_tf32, (begin, end), diagonal, needs, x.dtype)
    return *results[2:4], _grad_params(_over_problems(results[4], needs), params, needs, ())


@operator
def kernel_sums_double_backward(
    grad_grad_x: Tensor | None, grad_grad_y: Tensor | None, grad_grad_params: Tensor | None, grad_sums: Tensor,
    x: Tensor, y: Tensor, params: Tensor, kinds: Sequence[int], allow_tf32: bool, begin: int, end: int, diagonal: bool,
    needs: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # fmt: skip
    """As the schema of kernel_sums_double_backward."""
    along = [torch.zeros_like(of) if grad is None else grad for grad, of in ((grad_grad_x, x), (grad_grad_y, y))]
    along_params = torch.zeros_like(params) if grad_grad_params is None else grad_grad_params
    results = _sweep(
        x, y, _stacked(*along), grad_sums, params, along_params, kinds, allow_tf32, (begin, end), diagonal, needs,
        x.dtype,
    )  # fmt: skip
    return *results[1:4], _grad_params(_over_problems(results[4], needs), params, needs, ())


def _over_problems(grad_thetas: Tensor, needs: int) -> Tensor:
    return grad_thetas.sum(0) if needs & _PARAMS else grad_thetas
