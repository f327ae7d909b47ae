"""The squared maximum mean discrepancy of two samples together with how uncertain it is."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from . import tiled
from .kernels import Kernel
from .samples import check_kernel, check_points


class MMDEstimate(NamedTuple):
    """A squared maximum mean discrepancy and how far it is from that of the distributions."""

    value: Tensor
    variance: Tensor


def mmd2_with_variance(x: Tensor, y: Tensor, kernel: Kernel) -> MMDEstimate:
    """The unbiased squared maximum mean discrepancy of two samples, and an unbiased estimate of its variance.

    variance = value^2 - the mean of h(z_1) h(z_2) over all pairs of quadruples z = (x, x', y, y') without a common
    point, where h(z) = k(x, x') + k(y, y') - k(x, y') - k(x', y), computed from row sums and squares of the kernel
    matrices.

    To learn a kernel, maximise value / variance.clamp(min=floor).sqrt(): the power of a test grows with this ratio. The
    estimate of the variance is often near zero and may be negative, where the distributions are about equal or the
    samples small; people clamp it by, or add to it, about 1e-8. Learn on other samples than you test on.

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device; M may differ from N.
        kernel: one of `wgan_kernels.kernels`.

    Returns:
        MMDEstimate of value, that of `mmd2`, and variance, both () and float64 for float64 points, else float32.

    Raises:
        TypeError: x or y is not a dense floating tensor, their dtypes differ, or kernel is not a kernel.
        ValueError: x or y is not two-dimensional or holds fewer than 4 points, or D or the device differs.

    Differentiable to any order by x, y and the parameters of the kernel. Computed in float64 in plain PyTorch, some
    rows of the kernel matrix at a time. Deterministic.
    Source: Sutherland and Deka 2019, "Unbiased estimators for the variance of MMD estimators"; Sutherland et al. 2017,
    "Generative Models and Model Criticism via Optimized Maximum Mean Discrepancy", for the ratio.
    """
    check_points({"x": x, "y": y}, least={"x": 4, "y": 4})  # two pairs of each, for products of independent values
    check_kernel(kernel)
    n, m, wide = len(x), len(y), torch.promote_types(x.dtype, torch.float32)
    sums = tiled.moments(x.double(), y.double(), _less_pivot(x.double(), kernel))
    xx, yy, xy = sums.xx_rows.sum(), sums.yy_rows.sum(), sums.xy_rows.sum()
    a, b, c = xx / (n * (n - 1)), yy / (m * (m - 1)), xy / (n * m)
    value = a + b - 2 * c

    # Unbiased estimates of E k(x, x')^2 and so on: means of products over indices that all differ, which are sums over
    # all indices less the terms where some agree. Estimates of x alone and of y alone are independent.
    aa = _disjoint_pairs(xx, sums.xx_rows, sums.xx_squares)
    bb = _disjoint_pairs(yy, sums.yy_rows, sums.yy_squares)
    cc = xy.square() - sums.xy_rows.square().sum() - sums.xy_columns.square().sum() + sums.xy_squares
    cc = cc / (n * (n - 1) * m * (m - 1))
    ac = (xx * xy - 2 * sums.xx_rows @ sums.xy_rows) / (n * (n - 1) * (n - 2) * m)
    bc = (yy * xy - 2 * sums.yy_rows @ sums.xy_columns) / (m * (m - 1) * (m - 2) * n)
    variance = value.square() - (aa + bb + 4 * cc + 2 * a * b - 4 * ac - 4 * bc)
    return MMDEstimate(value.to(wide), variance.to(wide))


def _disjoint_pairs(total: Tensor, rows: Tensor, squares: Tensor) -> Tensor:
    """The mean of K_ij K_kl over distinct i, j, k, l, from the sums of a matrix without its diagonal."""
    n = len(rows)
    return (total.square() - 4 * rows.square().sum() + 2 * squares) / (n * (n - 1) * (n - 2) * (n - 3))


def _less_pivot(x: Tensor, kernel: Kernel) -> tiled.Matrix:
    """k(u, v) - k(u, p) - k(p, v) + k(p, p) for a point p, with the same discrepancy and variance.

    Any f(u) + f(v) taken from a kernel leaves both as they are, also where f is constant for derivatives. This one
    takes away what the values of a polynomial kernel far from the origin have in common, in whose squares the rest
    would drown.
    """
    pivot = x[:1].detach()

    def matrix(u: Tensor, v: Tensor) -> Tensor:
        with torch.no_grad():
            by_pivot = kernel.matrix(pivot, torch.cat([u, v, pivot]))[0]
            of_u, of_v, _ = (by_pivot - by_pivot[-1] / 2).split([len(u), len(v), 1])
        return kernel.matrix(u, v) - of_u[:, None] - of_v

    return matrix
