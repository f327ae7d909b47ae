"""Tiles of pairs of points: squared distances, inner products, and which pairs count.

A tile is BLOCK points by BLOCK points. Two ways to its distances: as differences of squared norms, from matrix products
of points less the mean of the tile's rows, in float32 (`product_tile`); and feature by feature from the differences of
points, in float64 (`difference_tile`), where the former would lose too many digits. Inner products of points as they
are come of the same loops: x_i . x_j = z_i . z_j + o . z_i + o . x_j for points z = x - o. OF says which of the two are
wanted, and STAGES how many steps ahead points are loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import triton
import triton.language as tl

from ._kernel_functions import POLYNOMIAL, distance_scale
from ._launch import autotuned, widened

# With more of either, registers spill.
BLOCK, FEATURES = 32, 16  # FEATURES: of a point that are loaded at a time
PROGRAMS = 256  # at least so many, where there is work for them: what a tile's rows meet is shared out among several


def ahead(
    *stages: int, num_warps: int = 4, num_stages: int = 2, maxnreg: int | None = None
) -> list[triton.Config]:  # fmt: skip
    """Configurations of a sweep over tiles: how many steps ahead points are loaded, and nothing that would change the
    order of sums, as other tiles and warps would, and with it the bits from one process to the next."""
    settings = {"num_warps": num_warps, "num_stages": num_stages, "maxnreg": maxnreg}
    return [triton.Config({"STAGES": n}, **settings) for n in stages]


def tuned(configs: Sequence[triton.Config]) -> Callable[[Any], Any]:
    """Once for each class of numbers of features, and for each dtype."""
    return autotuned(configs, ["size_class"])


# By the precision of products: those whose registers do not spill.
PRODUCT_CONFIGS = {"tf32x3": ahead(2, 3), "tf32": ahead(2, 1)}
# |z|^2 over a kernel's scale up to which distances in float32 will do, and the scales that float32 can hold: as
# kFloatDistances in csrc/core/mixture.cuh, since a distance errs in proportion to |z|^2 here as there.
_FLOAT_DISTANCES = tl.constexpr(128.0)
_SMALLEST_SCALE = tl.constexpr(1e-30)
_LARGEST_SCALE = tl.constexpr(1e30)


@triton.jit
def load_points(points, first, limit, feature, D, BLOCK: tl.constexpr, FEATURES: tl.constexpr):
    """[BLOCK, FEATURES] float32 of points [.., D], rows below limit and features below D; zeros elsewhere."""
    row, column = first + tl.arange(0, BLOCK), feature + tl.arange(0, FEATURES)
    at = row.to(tl.int64)[:, None] * D + column[None, :]
    return tl.load(points + at, mask=(row < limit)[:, None] & (column < D)[None, :], other=0.0).to(tl.float32)


@triton.jit
def load_feature(points, first, limit, feature, D, BLOCK: tl.constexpr):
    """[BLOCK] float64 of points [.., D], rows below limit; zeros elsewhere."""
    row = first + tl.arange(0, BLOCK)
    return widened(tl.load(points + row.to(tl.int64) * D + feature, mask=row < limit, other=0.0))


@triton.jit
def mean_of_rows(points, first, limit):
    """[FEATURES] of load_points, whose rows from the limit on are zeros."""
    return tl.sum(points, 0) / tl.maximum(limit - first, 1).to(tl.float32)


@triton.jit
def rows_below(first, limit, BLOCK: tl.constexpr):
    return tl.minimum(limit, first + BLOCK)


@triton.jit
def too_few_digits(largest, origin, thetas, shapes, KINDS: tl.constexpr, C: tl.constexpr, Q):
    """Whether float32 will not do for some component. largest: of |z|^2; origin: |o|^2; thetas: [C, Q] float64, of each
    component its first; shapes: [C]

    Squared distances are differences of |z|^2, which may not be many times the scale over which the function changes.
    Inner products must not drown in the one of the mean with itself, nor their powers leave the range of float32.
    """
    limit, fails = tl.full([], float("inf"), tl.float64), largest < 0
    for c in tl.static_range(C):
        theta = tl.load(thetas + c * Q)
        if (KINDS >> (32 * c)) & 15 == POLYNOMIAL:
            base = 2 * (largest.to(tl.float64) + origin) + tl.abs(theta)
            power = base
            for _ in range(1, (KINDS >> (32 * c + 4)) & 0xFFFFFFF):
                power *= base
            fails |= (origin > 16 * largest) | (power > 1e30) | ((power < 1e-25) & (base != 0))
        else:
            scale = distance_scale(theta, tl.load(shapes + c), (KINDS >> (32 * c)) & 15)
            held = (scale >= _SMALLEST_SCALE) & (scale <= _LARGEST_SCALE)
            limit = tl.minimum(limit, tl.where(held, scale * _FLOAT_DISTANCES, -1.0))
    return fails | (largest > limit)


@triton.jit
def largest_norm(norms, first, limit, BLOCK: tl.constexpr):
    """Of the points below limit. norms: [BLOCK]"""
    return tl.max(tl.where(first + tl.arange(0, BLOCK) < limit, norms, 0.0), 0)


@triton.jit
def squared_distances(dots, norms_i, norms_j):
    """[BLOCK, BLOCK] of z_i . z_j and |z|^2, not negative; NaN stays."""
    s = norms_i[:, None] + norms_j[None, :] - 2 * dots
    return tl.where(s < 0, 0.0, s)


@triton.jit
def product_tile(
    points, i, i_limit, j, j_limit, D, OF: tl.constexpr,
    BLOCK: tl.constexpr, FEATURES: tl.constexpr, PRECISION: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """Squared distances and inner products [BLOCK, BLOCK] float32 of the points from i and from j on, the largest |z|^2
    of them, and |o|^2, which is known where products are wanted."""
    dots = tl.zeros([BLOCK, BLOCK], tl.float32)
    norms_i, norms_j = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    shifts_i, shifts_j = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    origin = tl.full([], 0.0, tl.float32)
    for feature in tl.range(0, D, FEATURES, num_stages=STAGES):
        z_i = load_points(points, i, i_limit, feature, D, BLOCK, FEATURES)
        mean = mean_of_rows(z_i, i, i_limit)
        z_i = z_i - mean[None, :]
        x_j = load_points(points, j, j_limit, feature, D, BLOCK, FEATURES)
        z_j = x_j - mean[None, :]
        dots = tl.dot(z_i, tl.trans(z_j), dots, input_precision=PRECISION)
        norms_i += tl.sum(z_i * z_i, 1)
        norms_j += tl.sum(z_j * z_j, 1)
        if OF & 2:
            shifts_i += tl.sum(z_i * mean[None, :], 1)
            shifts_j += tl.sum(x_j * mean[None, :], 1)
            origin += tl.sum(mean * mean, 0)
    largest = tl.maximum(largest_norm(norms_i, i, i_limit, BLOCK), largest_norm(norms_j, j, j_limit, BLOCK))
    products = dots
    if OF & 2:
        products = dots + (shifts_i[:, None] + shifts_j[None, :])
    return squared_distances(dots, norms_i, norms_j), products, largest, origin


@triton.jit
def difference_tile(points, i, i_limit, j, j_limit, D, OF: tl.constexpr, BLOCK: tl.constexpr, STAGES: tl.constexpr):
    """Squared distances and inner products [BLOCK, BLOCK] float64 of the points from i and from j on."""
    s, products = tl.zeros([BLOCK, BLOCK], tl.float64), tl.zeros([BLOCK, BLOCK], tl.float64)
    for feature in tl.range(0, D, num_stages=STAGES):
        z_i = load_feature(points, i, i_limit, feature, D, BLOCK)
        z_j = load_feature(points, j, j_limit, feature, D, BLOCK)
        if OF & 1:
            difference = z_i[:, None] - z_j[None, :]
            s += difference * difference
        if OF & 2:
            products += z_i[:, None] * z_j[None, :]
    # An infinite distance comes of infinite points, or of squares beyond float64: no kernel value is known for either.
    return s + (s - s), products + (products - products)


@triton.jit
def sum_of_tile(values):
    """[] float64: rows of a tile are short enough to be added up in the dtype of the values."""
    return tl.sum(tl.sum(values, 1).to(tl.float64), 0)


@triton.jit
def tile_range(tile, N, M, BLOCK: tl.constexpr):
    """The first point of a tile and the end of its set, among the points [x; y]; no tile holds points of both."""
    tiles_x = tl.cdiv(N, BLOCK)
    of_y = tile >= tiles_x
    return tl.where(of_y, N + (tile - tiles_x) * BLOCK, tile * BLOCK), tl.where(of_y, N + M, N)


@triton.jit
def tile_of(row, N, BLOCK: tl.constexpr):
    """The tile that holds a point, among the points [x; y]."""
    return tl.where(row < N, row // BLOCK, tl.cdiv(N, BLOCK) + (row - N) // BLOCK)


@triton.jit
def product_along(
    points, along, i, i_limit, j, j_limit, D, OF: tl.constexpr,
    BLOCK: tl.constexpr, FEATURES: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The derivatives of product_tile's squared distances and inner products along directions u of points:
    2 (z_i - z_j) . (v_i - v_j) for v = u - p, the mean of the rows', and u_i . x_j + x_i . u_j."""
    dots = tl.zeros([BLOCK, BLOCK], tl.float32)
    norms_i, norms_j = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for feature in range(0, D, FEATURES):
        z_i = load_points(points, i, i_limit, feature, D, BLOCK, FEATURES)
        mean = mean_of_rows(z_i, i, i_limit)
        z_i = z_i - mean[None, :]
        z_j = load_points(points, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
        v_i = load_points(along, i, i_limit, feature, D, BLOCK, FEATURES)
        mean = mean_of_rows(v_i, i, i_limit)
        v_i = v_i - mean[None, :]
        v_j = load_points(along, j, j_limit, feature, D, BLOCK, FEATURES) - mean[None, :]
        dots = tl.dot(v_i, tl.trans(z_j), dots, input_precision=PRECISION)
        dots = tl.dot(z_i, tl.trans(v_j), dots, input_precision=PRECISION)
        norms_i += tl.sum(z_i * v_i, 1)
        norms_j += tl.sum(z_j * v_j, 1)
    products = dots
    if OF & 2:
        products = shifted_along(points, along, i, i_limit, j, j_limit, D, dots, BLOCK, FEATURES)
    return 2 * (norms_i[:, None] + norms_j[None, :] - dots), products


@triton.jit
def shifted_along(
    points, along, i, i_limit, j, j_limit, D, dots, BLOCK: tl.constexpr, FEATURES: tl.constexpr
):  # fmt: skip
    """u_i . x_j + x_i . u_j from v_i . z_j + z_i . v_j; in a loop of its own, for which registers are left."""
    shifts_i, shifts_j = tl.zeros([BLOCK], tl.float32), tl.zeros([BLOCK], tl.float32)
    for feature in range(0, D, FEATURES):
        z_i = load_points(points, i, i_limit, feature, D, BLOCK, FEATURES)
        v_i = load_points(along, i, i_limit, feature, D, BLOCK, FEATURES)
        mean, along_mean = mean_of_rows(z_i, i, i_limit)[None, :], mean_of_rows(v_i, i, i_limit)[None, :]
        shifts_i += tl.sum((v_i - along_mean) * mean + (z_i - mean) * along_mean, 1)
        x_j = load_points(points, j, j_limit, feature, D, BLOCK, FEATURES)
        u_j = load_points(along, j, j_limit, feature, D, BLOCK, FEATURES)
        shifts_j += tl.sum(u_j * mean + x_j * along_mean, 1)
    return dots + (shifts_i[:, None] + shifts_j[None, :])


@triton.jit
def difference_along(points, along, i, i_limit, j, j_limit, D, OF: tl.constexpr, BLOCK: tl.constexpr):
    """The derivatives of difference_tile's squared distances and inner products along directions of the points."""
    along_s, products = tl.zeros([BLOCK, BLOCK], tl.float64), tl.zeros([BLOCK, BLOCK], tl.float64)
    for feature in range(D):
        z_i = load_feature(points, i, i_limit, feature, D, BLOCK)
        z_j = load_feature(points, j, j_limit, feature, D, BLOCK)
        u_i = load_feature(along, i, i_limit, feature, D, BLOCK)
        u_j = load_feature(along, j, j_limit, feature, D, BLOCK)
        if OF & 1:
            along_s += (z_i[:, None] - z_j[None, :]) * (u_i[:, None] - u_j[None, :])
        if OF & 2:
            products += z_i[:, None] * u_j[None, :] + u_i[:, None] * z_j[None, :]
    return 2 * along_s, products
