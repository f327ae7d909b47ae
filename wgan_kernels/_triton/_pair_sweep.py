"""The sweep over pairs of points behind kernel_sums, its backward and its double backward.

A program owns the rows of one tile and goes through the columns' tiles, in order, of its share (`split`). It owns what
it writes: the gradient of its rows, and its part of the sums. So that nobody adds to another's rows, a row whose
gradient is wanted meets every other point, and each pair is visited from both of its ends; other rows meet the points
behind them only.
"""

from __future__ import annotations

import triton
import triton.language as tl

from ._kernel_functions import kernel_terms
from ._tiles import (
    load_feature,
    load_points,
    mean_of_rows,
    sum_of_tile,
    tile_of,
)


@triton.jit
def pair_terms(
    s, along_s, counted, thetas, along_thetas, Q, weights, factor,
    KINDS: tl.constexpr, C: tl.constexpr, CPAD: tl.constexpr,
    GRADIENT: tl.constexpr, THETA: tl.constexpr, TANGENT: tl.constexpr,
):  # fmt: skip
    """Of one tile: sums of k and of k_t, [CPAD] float64, and the weights sum_c weights[c] * k_s of its pairs, or for a
    tangent the derivatives of all these.

    s, along_s: [BLOCK, BLOCK], squared distances and their derivative; counted: the pairs that count;
    thetas: [C, Q]; along_thetas, weights: [C]; factor: of the weights.
    """
    component = tl.arange(0, CPAD)
    k_sums, t_sums = tl.zeros([CPAD], tl.float64), tl.zeros([CPAD], tl.float64)
    w, along_w = tl.zeros_like(s), tl.zeros_like(s)
    for c in tl.static_range(C):
        k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(s, tl.load(thetas + c * Q), (KINDS >> (4 * c)) & 15)
        if GRADIENT:
            weight = (tl.load(weights + c) * factor).to(s.dtype)
            w += weight * k_s
        if TANGENT:
            along_t = tl.load(along_thetas + c).to(s.dtype)
            if GRADIENT:
                along_w += weight * (k_ss * along_s + k_st * along_t)
            k = k_s * along_s + k_t * along_t
            k_t = k_st * along_s + k_tt * along_t
        k_sums += tl.where(component == c, sum_of_tile(tl.where(counted, k, 0.0)), 0.0)
        if THETA:
            t_sums += tl.where(component == c, sum_of_tile(tl.where(counted, k_t, 0.0)), 0.0)
    return k_sums, t_sums, tl.where(counted, w, 0.0), tl.where(counted, along_w, 0.0)


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


@triton.jit
def add_products(
    points, along, w, along_w, i, i_limit, j, j_limit, gradients, owned_limit, D, TANGENT: tl.constexpr,
    BLOCK: tl.constexpr, FEATURES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gradients[i, :] += sum_j w_ij z_j (for a tangent w_ij u_j + along_w_ij z_j), all less the mean of the rows."""
    row = i + tl.arange(0, BLOCK)
    for feature in range(0, D, FEATURES):
        mean = mean_of_rows(load_points(points, i, i_limit, feature, D, BLOCK, FEATURES), i, i_limit)
        z_j = load_points(points, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
        if TANGENT:
            mean = mean_of_rows(load_points(along, i, i_limit, feature, D, BLOCK, FEATURES), i, i_limit)
            u_j = load_points(along, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
            product = tl.dot(w, u_j, input_precision=PRECISION)
            product = tl.dot(along_w, z_j, product, input_precision=PRECISION)
        else:
            product = tl.dot(w, z_j, input_precision=PRECISION)
        column = feature + tl.arange(0, FEATURES)
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        tl.store(at, tl.load(at, mask=mask, other=0.0) + product.to(tl.float64), mask=mask)


@triton.jit
def add_differences(
    points, along, w, along_w, i, i_limit, j, j_limit, gradients, owned_limit, D,
    TANGENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gradients[i, :] += 2 sum_j w_ij (x_i - x_j) (for a tangent w_ij (u_i - u_j) + along_w_ij (x_i - x_j))."""
    row = i + tl.arange(0, BLOCK)
    for feature in range(D):
        z_i = load_feature(points, i, i_limit, feature, D, BLOCK)
        moved = z_i[:, None] - load_feature(points, j, j_limit, feature, D, BLOCK)[None, :]
        if TANGENT:
            u_i = load_feature(along, i, i_limit, feature, D, BLOCK)
            turned = u_i[:, None] - load_feature(along, j, j_limit, feature, D, BLOCK)[None, :]
            product = w * turned + along_w * moved
        else:
            product = w * moved
        at = gradients + row.to(tl.int64) * D + feature
        mask = row < owned_limit
        tl.store(at, tl.load(at, mask=mask, other=0.0) + 2 * tl.sum(product, 1), mask=mask)


@triton.jit
def finish_products(
    points, along, w_sums, along_w_sums, i, i_limit, gradients, owned_limit, D, TANGENT: tl.constexpr,
    BLOCK: tl.constexpr, FEATURES: tl.constexpr,
):  # fmt: skip
    """gradients[i, :] <- 2 (z_i sum_j w_ij - gradients[i, :]), of what add_products left there."""
    row = i + tl.arange(0, BLOCK)
    for feature in range(0, D, FEATURES):
        z_i = load_points(points, i, i_limit, feature, D, BLOCK, FEATURES)
        z_i = (z_i - mean_of_rows(z_i, i, i_limit)[None, :]).to(tl.float64)
        if TANGENT:
            u_i = load_points(along, i, i_limit, feature, D, BLOCK, FEATURES)
            u_i = (u_i - mean_of_rows(u_i, i, i_limit)[None, :]).to(tl.float64)
            moved = u_i * w_sums[:, None] + z_i * along_w_sums[:, None]
        else:
            moved = z_i * w_sums[:, None]
        column = feature + tl.arange(0, FEATURES)
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        tl.store(at, 2 * (moved - tl.load(at, mask=mask, other=0.0)), mask=mask)


@triton.jit
def clear_rows(gradients, i, owned_limit, D, BLOCK: tl.constexpr, FEATURES: tl.constexpr):
    row = i + tl.arange(0, BLOCK)
    for feature in range(0, D, FEATURES):
        column = feature + tl.arange(0, FEATURES)
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        tl.store(at, tl.zeros([BLOCK, FEATURES], tl.float64), mask=mask)
