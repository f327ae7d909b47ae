"""What a sweep over pairs of points adds to the gradients of its rows, from the weights of the pairs."""

from __future__ import annotations

import triton
import triton.language as tl

from ._tiles import load_feature, load_points, mean_of_rows


@triton.jit
def clear_rows(gradients, i, owned_limit, D, BLOCK: tl.constexpr, FEATURES: tl.constexpr):
    row = i + tl.arange(0, BLOCK)
    for feature in range(0, D, FEATURES):
        column = feature + tl.arange(0, FEATURES)
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        tl.store(at, tl.zeros([BLOCK, FEATURES], tl.float64), mask=mask)


@triton.jit
def add_products(
    points, along, w, along_w, moved, along_moved, i, i_limit, j, j_limit, gradients, owned_limit, D, OF: tl.constexpr,
    TANGENT: tl.constexpr, BLOCK: tl.constexpr, FEATURES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """gradients[i, :] += sum_j w_ij z_j - moved_i x_i / 2 (for a tangent sum_j (w_ij v_j + along_w_ij z_j)
    - (moved_i u_i + along_moved_i x_i) / 2) for points z = x - o and directions v = u - p less the means of the rows'.
    moved: what w has of inner products, times -2, which move a point by x_j as it is."""
    row = i + tl.arange(0, BLOCK)
    for feature in range(0, D, FEATURES):
        x_i = load_points(points, i, i_limit, feature, D, BLOCK, FEATURES)
        mean = mean_of_rows(x_i, i, i_limit)
        z_j = load_points(points, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
        if TANGENT:
            u_i = load_points(along, i, i_limit, feature, D, BLOCK, FEATURES)
            mean = mean_of_rows(u_i, i, i_limit)
            v_j = load_points(along, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
            product = tl.dot(w, v_j, input_precision=PRECISION)
            product = tl.dot(along_w, z_j, product, input_precision=PRECISION)
        else:
            product = tl.dot(w, z_j, input_precision=PRECISION)
        total = product.to(tl.float64)
        if OF & 2:
            total -= 0.5 * moved[:, None] * x_i.to(tl.float64)
        column = feature + tl.arange(0, FEATURES)
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        tl.store(at, tl.load(at, mask=mask, other=0.0) + total, mask=mask)


@triton.jit
def add_differences(
    points, along, w, along_w, moved, along_moved, i, i_limit, j, j_limit, gradients, owned_limit, D, OF: tl.constexpr,
    TANGENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """gradients[i, :] += 2 sum_j w_ij (x_i - x_j) + moved_i x_i (for a tangent the derivative along u)."""
    row = i + tl.arange(0, BLOCK)
    for feature in range(D):
        x_i = load_feature(points, i, i_limit, feature, D, BLOCK)
        difference = x_i[:, None] - load_feature(points, j, j_limit, feature, D, BLOCK)[None, :]
        if TANGENT:
            u_i = load_feature(along, i, i_limit, feature, D, BLOCK)
            turned = u_i[:, None] - load_feature(along, j, j_limit, feature, D, BLOCK)[None, :]
            total = 2 * tl.sum(w * turned + along_w * difference, 1)
            if OF & 2:
                total += moved * u_i + along_moved * x_i
        else:
            total = 2 * tl.sum(w * difference, 1)
            if OF & 2:
                total += moved * x_i
        at = gradients + row.to(tl.int64) * D + feature
        mask = row < owned_limit
        tl.store(at, tl.load(at, mask=mask, other=0.0) + total, mask=mask)


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
            v_i = load_points(along, i, i_limit, feature, D, BLOCK, FEATURES)
            v_i = (v_i - mean_of_rows(v_i, i, i_limit)[None, :]).to(tl.float64)
            kept = v_i * w_sums[:, None] + z_i * along_w_sums[:, None]
        else:
            kept = z_i * w_sums[:, None]
        column = feature + tl.arange(0, FEATURES)
        at = gradients + row.to(tl.int64)[:, None] * D + column[None, :]
        mask = (row < owned_limit)[:, None] & (column < D)[None, :]
        tl.store(at, 2 * (kept - tl.load(at, mask=mask, other=0.0)), mask=mask)
