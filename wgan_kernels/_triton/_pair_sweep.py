"""The sweep over pairs of points behind kernel_sums, its backward and its double backward.

A program owns the rows of one tile and goes through the columns' tiles, in order, of its share (`split`). It owns what
it writes: the gradient of its rows, and its part of the sums. So that nobody adds to another's rows, a row whose
gradient is wanted meets every other point, and each pair is visited from both of its ends; other rows meet the points
behind them only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._kernel_functions import POLYNOMIAL, kernel_terms
from ._pair_gradients import add_differences, add_products, clear_rows, finish_products
from ._tiles import (
    difference_along,
    difference_tile,
    product_along,
    product_tile,
    sum_of_tile,
    tile_of,
    tile_range,
    too_few_digits,
)


@triton.jit
def component_terms(
    s, along, counted, itself, self_share, theta, along_t, shape, weight,
    CODE: tl.constexpr, GRADIENT: tl.constexpr, THETA: tl.constexpr, TANGENT: tl.constexpr, SELVES: tl.constexpr,
):  # fmt: skip
    """What pair_terms returns, of one component, and weights of pairs whether they count or not."""
    PRODUCT: tl.constexpr = (CODE & 15) == POLYNOMIAL
    k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(s, theta, shape, CODE)
    w, along_w, moved, along_moved = k_s, k_s, tl.zeros([s.shape[0]], s.dtype), tl.zeros([s.shape[0]], s.dtype)
    if GRADIENT:
        w = weight * k_s
        if TANGENT:
            along_w = weight * (k_ss * along + k_st * along_t)
    if TANGENT:
        k = k_s * along + k_t * along_t
        k_t = k_st * along + k_tt * along_t
    if PRODUCT:
        if SELVES:
            counted |= itself
            k, k_t = tl.where(itself, k * self_share, k), tl.where(itself, k_t * self_share, k_t)
        if GRADIENT:
            moved, w = tl.sum(tl.where(counted, w, 0.0), 1), w * -0.5
            if TANGENT:
                along_moved, along_w = tl.sum(tl.where(counted, along_w, 0.0), 1), along_w * -0.5
    elif SELVES:
        w, along_w = tl.where(counted, w, 0.0), tl.where(counted, along_w, 0.0)
    k_sum, t_sum = sum_of_tile(tl.where(counted, k, 0.0)), tl.full([], 0.0, tl.float64)
    if THETA:
        t_sum = sum_of_tile(tl.where(counted, k_t, 0.0))
    return k_sum, t_sum, w, along_w, moved.to(tl.float64), along_moved.to(tl.float64)


@triton.jit
def pair_terms(
    s, products, along_s, along_products, counted, itself, self_share, thetas, along_thetas, shapes, Q, weights, factor,
    KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr,
    GRADIENT: tl.constexpr, THETA: tl.constexpr, TANGENT: tl.constexpr, SELVES: tl.constexpr,
):  # fmt: skip
    """Of one tile: sums of k and of k_t, [CPAD] float64, the weights of its pairs, and of each row the sum of those of
    inner products, [BLOCK] float64; or for a tangent the derivatives of all these.

    A pair's weight is sum_c weights[c] * k_s, of inner products times -1/2, so that -2 sum_j w_ij x_j is of both.

    s, products, and their derivatives along_*: [BLOCK, BLOCK]; counted: the pairs that count; itself: pairs of a point
    with itself, which count for products with SELVES, in the sums self_share times; thetas: [C, Q]; along_thetas,
    shapes, weights: [C]; factor: of the weights.
    """
    component = tl.arange(0, CPAD)
    k_sums, t_sums = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    w, along_w = tl.zeros_like(s), tl.zeros_like(s)
    moved, along_moved = tl.zeros([s.shape[0]], tl.float64), tl.zeros([s.shape[0]], tl.float64)
    for c in tl.static_range(C):
        of, along = s, along_s
        if (KINDS >> (32 * c)) & 15 == POLYNOMIAL:
            of, along = products, along_products
        weight, along_t = (tl.load(weights + c) * factor).to(s.dtype), tl.load(along_thetas + c).to(s.dtype)
        k_sum, t_sum, slope, bend, move, along_move = component_terms(
            of, along, counted, itself, self_share, tl.load(thetas + c * Q), along_t, tl.load(shapes + c), weight,
            (KINDS >> (32 * c)) & 0xFFFFFFFF, GRADIENT, THETA, TANGENT, SELVES,
        )  # fmt: skip
        k_sums += tl.where(component == c, k_sum, 0.0)
        if THETA:
            t_sums += tl.where(component == c, t_sum, 0.0)
        if GRADIENT:
            w += slope
            if TANGENT:
                along_w += bend
        if GRADIENT and (KINDS >> (32 * c)) & 15 == POLYNOMIAL:
            moved += move
            if TANGENT:
                along_moved += along_move
    if SELVES:
        counted |= itself
    return k_sums, t_sums, tl.where(counted, w, 0.0), tl.where(counted, along_w, 0.0), moved, along_moved


@triton.jit
def pairs_with_itself(row, column, row_limit, begin, end):
    """[BLOCK, BLOCK]: the pairs (i, i) of the rows [begin, end)."""
    asked = (row < row_limit) & (row >= begin) & (row < end)
    return (row[:, None] == column[None, :]) & asked[:, None]


@triton.jit
def counted_pairs(row, column, row_limit, column_limit, begin, end, owned_limit):
    """[BLOCK, BLOCK]: row i of [x; y] owns the pairs (i, j), j > i, and rows [begin, end) are asked for. Rows below
    owned_limit meet the points before them too."""
    owner = tl.minimum(row[:, None], column[None, :])
    ahead = (column[None, :] > row[:, None]) | (column[None, :] < tl.minimum(row, owned_limit)[:, None])
    inside = (row < row_limit)[:, None] & (column < column_limit)[None, :]
    return ahead & inside & (owner >= begin) & (owner < end)


@triton.jit
def columns_to_visit(tile, first, last, N, M, begin, end, both_ways, BLOCK: tl.constexpr):
    """The range of tiles that hold a partner of the points from first to last in a pair of the rows [begin, end)."""
    lower = tl.where(both_ways, tile_of(begin, N, BLOCK), tile)
    behind = first >= end
    tiles = tl.cdiv(N, BLOCK) + tl.cdiv(M, BLOCK)
    upper = tl.where(behind, tile_of(end - 1, N, BLOCK) + 1, tiles)
    nothing = (last < begin) | (begin >= end) | (behind & (both_ways == 0))
    return lower, tl.where(nothing, 0, upper)


@triton.jit(do_not_specialize=["N", "M", "begin", "end", "S", "Q", "weight_stride", "size_class"])
def sweep(
    points, along, weights, thetas, along_thetas, shapes, sums, gradients, flags, N, M, D, begin, end, S, Q,
    weight_stride, size_class, KINDS: tl.constexpr, OF: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr,
    NEEDS: tl.constexpr, TANGENT: tl.constexpr, SELVES: tl.constexpr, EXACT: tl.constexpr, FLAGGED: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """points, along: [B, N + M, D]; weights: [3, C] or [B, 3, C] float64; thetas: [C, Q]; along_thetas,
    shapes: [C]; sums: [B, tiles, S, 4, C] float64, of k and k_t, of pairs within a set and across; gradients:
    [B, S, N + M, D] float64; flags: [B, tiles, S] int32."""
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
    largest, origin = tl.full([], 0.0, tl.float32), tl.full([], 0.0, tl.float32)
    if NEEDS & 3:
        clear_rows(gradients, i, owned_limit, D, BLOCK, FEATURES)
        tl.debug_barrier()
    for other in range(lower + split, upper, S):
        j, j_limit = tile_range(other, N, M, BLOCK)
        across = (other >= tiles_x) != of_y
        if EXACT:
            s, products = difference_tile(points, i, i_limit, j, j_limit, D, OF, BLOCK, STAGES)
            along_s, along_p = s, products
            if TANGENT:
                along_s, along_p = difference_along(points, along, i, i_limit, j, j_limit, D, OF, BLOCK)
        else:
            s, products, norm, origin = product_tile(
                points, i, i_limit, j, j_limit, D, OF, BLOCK, FEATURES, PRECISION, STAGES
            )  # fmt: skip
            largest = tl.maximum(largest, norm)
            along_s, along_p = s, products
            if TANGENT:
                along_s, along_p = product_along(
                    points, along, i, i_limit, j, j_limit, D, OF, BLOCK, FEATURES, PRECISION
                )  # fmt: skip
        row, column = i + tl.arange(0, BLOCK), j + tl.arange(0, BLOCK)
        counted = counted_pairs(row, column, i_limit, j_limit, begin, end, owned_limit)
        itself = pairs_with_itself(row, column, i_limit, begin, end) if SELVES else counted
        block = tl.where(across, 2, tl.where(of_y, 1, 0))
        k_sums, t_sums, w, along_w, moved, along_moved = pair_terms(
            s, products, along_s, along_p, counted, itself, tl.where(owned, 1.0, 0.5), thetas, along_thetas, shapes, Q,
            weights + block * C, tl.where(across, 1.0, 2.0),
            KINDS, C, CPAD, (NEEDS & 3) != 0, (NEEDS & 4) != 0, TANGENT, SELVES,
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
                    points, along, w, along_w, moved, along_moved, i, i_limit, j, j_limit, gradients, owned_limit, D,
                    OF, TANGENT, BLOCK,
                )  # fmt: skip
            else:
                w_sums += tl.sum(w, 1).to(tl.float64)
                along_w_sums += tl.sum(along_w, 1).to(tl.float64)
                if TANGENT and (OF & 2):
                    # One after the other: both at once would need more registers than there are.
                    add_products(
                        points, along, along_w, w, along_moved, moved, i, i_limit, j, j_limit, gradients, owned_limit,
                        D, OF, False, BLOCK, FEATURES, PRECISION,
                    )  # fmt: skip
                    tl.debug_barrier()
                    add_products(
                        along, points, w, along_w, moved, along_moved, i, i_limit, j, j_limit, gradients, owned_limit,
                        D, OF, False, BLOCK, FEATURES, PRECISION,
                    )  # fmt: skip
                else:
                    add_products(
                        points, along, w, along_w, moved, along_moved, i, i_limit, j, j_limit, gradients, owned_limit,
                        D, OF, TANGENT, BLOCK, FEATURES, PRECISION,
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
        tl.store(flags + program, too_few_digits(largest, origin, thetas, shapes, KINDS, C, Q).to(tl.int32))
