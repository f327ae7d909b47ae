"""mmd2: the squared maximum mean discrepancy of two samples."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks
from .kernels import Kernel
from .ops.kernel_sums import weighted_kernel_sum


def mmd2(x: Tensor, y: Tensor, kernel: Kernel, *, estimator: str = "unbiased") -> Tensor:
    """Squared maximum mean discrepancy of two samples.

    unbiased: sum_{i!=j} k(x_i, x_j) / N(N - 1) + sum_{i!=j} k(y_i, y_j) / M(M - 1) - 2 sum_{i,j} k(x_i, y_j) / NM
    biased:   sum_{i,j} k(x_i, x_j) / N^2 + sum_{i,j} k(y_i, y_j) / M^2 - 2 sum_{i,j} k(x_i, y_j) / NM

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device; M may differ from N.
        kernel: one of `wgan_kernels.kernels`.
        estimator: 'unbiased' (the U-statistic; may be negative, and its mean is 0 for equal distributions) or
            'biased' (the V-statistic; never negative).

    Returns:
        () float64 for float64 input, else float32.

    Raises:
        TypeError: x or y is not a dense floating tensor, their dtypes differ, or kernel is not a kernel.
        ValueError: x or y is not two-dimensional, D or the device differs, or there are too few points: 2 for
            'unbiased', 1 for 'biased'.

    Differentiable twice by x and y; a third derivative raises. The N x M matrix is never stored: beside the gradients a
    call takes memory for a few copies of the points. Distances are taken between centred points, in float32 where that
    leaves them enough digits and in float64 otherwise; sums run in float64 in a fixed order: the same input gives the
    same bits for any number of threads.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6 (unbiased) and equation 5 (biased).
    """
    biased = estimator == "biased"
    if not biased and estimator != "unbiased":
        _checks.choice("estimator", estimator, ("unbiased", "biased"))
    n, m = _numbers_of_points(x, y, least=1 if biased else 2)
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel must be one of wgan_kernels.kernels, got {type(kernel).__name__}")
    pairs_x, pairs_y = (n * n, m * m) if biased else (n * (n - 1), m * (m - 1))
    weights = (1 / pairs_x, 1 / pairs_y, -2 / (n * m))
    return weighted_kernel_sum(x, y, kernel.kinds, kernel.params, weights, diagonal=biased)


def _numbers_of_points(x: Tensor, y: Tensor, least: int) -> tuple[int, int]:
    """N and M, of points that fit together."""
    try:  # one look at everything, as the checks with all their words cost as much as a small sweep
        (n, d), (m, e) = x.shape, y.shape
        dtype = x.dtype
        if (
            dtype is y.dtype
            and dtype in _checks.FLOATING_DTYPES
            and d == e
            and n >= least
            and m >= least
            and x.layout is torch.strided
            and y.layout is torch.strided
            and (x.is_cpu and y.is_cpu or x.device == y.device)
        ):
            return n, m
    except (AttributeError, TypeError, ValueError):
        pass
    _check_points(x, y, least)
    return x.size(0), y.size(0)


def _check_points(x: Tensor, y: Tensor, least: int) -> None:
    for name, points in (("x", x), ("y", y)):
        _checks.floating(name, points)
        if points.dim() != 2:
            raise ValueError(f"{name} must be points of shape (number, features), got {tuple(points.shape)}")
        if points.size(0) < least:
            raise ValueError(f"{name} must hold at least {least} points for this estimator, got {points.size(0)}")
    if x.dtype != y.dtype:
        raise TypeError(f"y must have the dtype of x, {x.dtype}, got {y.dtype}")
    _checks.same_device("x", x, "y", y)
    if x.size(1) != y.size(1):
        raise ValueError(f"y must have as many features as x, {x.size(1)}, got {y.size(1)}")
