"""Tests of whether samples come from one distribution, by their maximum mean discrepancies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from .kernels import Kernel
from .pair_sums import matvec
from .relabelling import Statistics, memberships, permuted_mmd2, signed_mmd2, signs
from .samples import check_kernel, check_points

METHODS = ("permutation", "wild_bootstrap")


class MMDTest(NamedTuple):
    """A test's statistic and how often, were the null hypothesis true, one at least as large would come."""

    statistic: Tensor
    p_value: Tensor


class MMDAggregatedTest(NamedTuple):
    """The p-value of a test with several kernels, and those of each kernel alone."""

    p_value: Tensor
    p_values: Tensor


@torch.no_grad()
def mmd_test(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    *,
    permutations: int = 1000,
    method: str = "permutation",
    generator: torch.Generator | None = None,
) -> MMDTest:
    """Whether two samples come from one distribution, at a level that holds for every sample size.

    p_value = (1 + the number of relabellings whose statistic is at least that of the samples) / (1 + permutations)

    'permutation' deals the joined points out to samples of N and M again; its statistic is `mmd2`. 'wild_bootstrap'
    swaps x_i and y_i or not, each with probability 1/2; its statistic is sum_{i!=j} h_ij / N(N - 1) with h_ij =
    k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(x_j, y_i), and x_i and y_i may depend on each other.

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device; M may differ from N but for 'wild_bootstrap'.
        kernel: one of `wgan_kernels.kernels`, not chosen by looking at x and y, but for functions of all points in no
            order, such as `median_bandwidth`.
        permutations: how many relabellings to draw.
        method: 'permutation' or 'wild_bootstrap'.
        generator: where the relabellings are drawn from; by default torch's global one of the CPU.

    Returns:
        MMDTest of statistic, () float64 for float64 points, else float32, and p_value, () float64.

    Raises:
        TypeError: x or y is not a dense floating tensor, dtypes differ, or kernel or permutations is of another type.
        ValueError: x or y is not two-dimensional or holds fewer than 2 points, D or the device differs, N != M for
            'wild_bootstrap', permutations < 1, or method is not one of the two.

    Not differentiable. All relabellings share one pass over the kernel matrix, which is never stored: it takes memory
    for (N + M) permutations numbers. The same state of the generator gives the same result.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test"; Fromont et al. 2012, "Kernels Based Tests with
    Non-asymptotic Bootstrap Approaches for Two-sample Problems" and Schrab et al. 2023, "MMD Aggregated Two-Sample
    Test" for the wild bootstrap and its level.
    """
    _checks.choice("method", method, METHODS)
    check_points({"x": x, "y": y}, least={"x": 2, "y": 2})
    check_kernel(kernel)
    _checks.positive_integer("permutations", permutations)
    _checks.generator(generator)
    if method == "permutation":
        (statistics,) = _permuted(x, y, [kernel], permutations, generator)
    else:
        if len(x) != len(y):
            raise ValueError(f"y must hold as many points as x with method='wild_bootstrap', {len(x)}, got {len(y)}")
        statistics = signed_mmd2(x, y, signs(len(x), permutations, x, generator), kernel)
    return MMDTest(statistics.values[0].to(torch.promote_types(x.dtype, torch.float32)), statistics.p_values()[0])


@torch.no_grad()
def mmd_aggregated_test(
    x: Tensor,
    y: Tensor,
    kernels: Sequence[Kernel],
    *,
    permutations: int = 1000,
    generator: torch.Generator | None = None,
) -> MMDAggregatedTest:
    """Whether two samples come from one distribution, with several kernels at once.

    p_value = (1 + the number of permutations whose smallest p-value is at most the samples') / (1 + permutations)

    where the smallest is taken over the kernels, and the p-value of a permutation with one kernel is its rank among all
    of them, the samples' own labels included. All kernels share the permutations, so that their dependence is accounted
    for and the level holds for every sample size.

    MMDAgg (Schrab et al. 2023) aggregates a grid of bandwidths too. It weights the kernels, sets the level of each by a
    bisection with further permutations, and says whether to reject; this is the min-p form with equal weights, which
    gives a p-value.

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device; M may differ from N.
        kernels: one or more of `wgan_kernels.kernels`: `[RBF(s * bandwidth) for s in (0.25, 0.5, 1, 2, 4)]`.
        permutations: how many permutations to draw, once for all kernels.
        generator: where they are drawn from; by default torch's global one of the CPU.

    Returns:
        MMDAggregatedTest of p_value, () float64, and p_values, (K,) float64, that of each kernel alone.

    Raises:
        TypeError: x or y is not a dense floating tensor, dtypes differ, kernels is not a sequence of kernels, or
            permutations is not a whole number.
        ValueError: x or y is not two-dimensional or holds fewer than 2 points, D or the device differs, kernels is
            empty, or permutations < 1.

    Not differentiable. The same state of the generator gives the same result.
    Source: Westfall and Young 1993, "Resampling-Based Multiple Testing"; Schrab et al. 2023, "MMD Aggregated Two-Sample
    Test".
    """
    check_points({"x": x, "y": y}, least={"x": 2, "y": 2})
    _check_kernels(kernels)
    _checks.positive_integer("permutations", permutations)
    _checks.generator(generator)
    p_values = torch.stack([each.p_values() for each in _permuted(x, y, kernels, permutations, generator)])
    smallest = p_values.min(0).values
    p_value = (smallest <= smallest[0]).double().mean()
    return MMDAggregatedTest(p_value.masked_fill(smallest[0].isnan(), torch.nan), p_values[:, 0])


def _permuted(
    x: Tensor, y: Tensor, kernels: Sequence[Kernel], permutations: int, generator: torch.Generator | None
) -> list[Statistics]:
    smaller, larger = (x, y) if len(x) <= len(y) else (y, x)  # the statistic does not mind which is which
    labels = memberships(len(smaller), len(larger), permutations, x, generator)
    points = torch.cat([smaller, larger])
    return [permuted_mmd2(points, labels, len(smaller), kernel) for kernel in kernels]


def _check_kernels(kernels: Any) -> None:
    if not isinstance(kernels, Sequence) or isinstance(kernels, str):
        raise TypeError(f"kernels must be a sequence of kernels, got {type(kernels).__name__}")
    if not kernels:
        raise ValueError("kernels must hold at least one kernel, got none")
    for index, kernel in enumerate(kernels):
        check_kernel(kernel, f"kernels[{index}]")


@torch.no_grad()
def mmd_relative_test(x: Tensor, y: Tensor, z: Tensor, kernel: Kernel) -> MMDTest:
    """Whether z is closer to x than y is: a small p-value says that the discrepancy of x and y is the larger one.

    statistic = (MMD^2(x, y) - MMD^2(x, z)) / standard deviation, p_value = P(a standard normal number > statistic)

    The null hypothesis is MMD(x, y) <= MMD(x, z); 1 - p_value is the p-value of the other direction. The two
    discrepancies share x: the variance is that of their difference, to first order in 1/N, 1/M and 1/L (that of sums
    over single points of what each contributes), which a normal number approaches for large samples of distributions
    that differ.

    Args:
        x: (N, D) the reference, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device, say from one model.
        z: (L, D) likewise, from another, independent of y.
        kernel: one of `wgan_kernels.kernels`.

    Returns:
        MMDTest of statistic, () float64 for float64 points, else float32, and p_value, () float64.

    Raises:
        TypeError: x, y or z is not a dense floating tensor, their dtypes differ, or kernel is not a kernel.
        ValueError: x, y or z is not two-dimensional or holds fewer than 2 points, or D or the device differs.

    Not differentiable. Deterministic. The kernel matrix is never stored.
    Source: Bounliphone et al. 2016, "A Test of Relative Similarity for Model Selection in Generative Models".
    """
    check_points({"x": x, "y": y, "z": z}, least={"x": 2, "y": 2, "z": 2})
    check_kernel(kernel)
    sizes = [len(x), len(y), len(z)]
    points, wide = torch.cat([x, y, z]), torch.promote_types(x.dtype, torch.float32)
    # In float64: the difference is one of sums that may be a million times as large.
    members = torch.block_diag(*[points.new_ones((size, 1), dtype=torch.float64) for size in sizes])
    sums = matvec(points.double(), points.double(), members, kernel, diagonal=False)
    in_x, in_y, in_z = sums.split(sizes)
    n, m, l = sizes  # noqa: E741 - as in the formulas
    # What each point adds to the difference: means of these are yy - xy - xz + zz and so on.
    of_x = 2 * (in_x[:, 2] / l - in_x[:, 1] / m)
    of_y = 2 * (in_y[:, 1] / (m - 1) - in_y[:, 0] / n)
    of_z = 2 * (in_z[:, 0] / n - in_z[:, 2] / (l - 1))
    difference = of_x.mean() + (in_y[:, 1].mean() / (m - 1)) - in_z[:, 2].mean() / (l - 1)
    variance = sum(of.var() / len(of) for of in (of_x, of_y, of_z))
    # Where all values are equal there is no more than rounding, and the statistic is about 0.
    rounding = 1024 * torch.finfo(torch.float64).eps * max(of.abs().max() for of in (of_x, of_y, of_z, in_x / n))
    statistic = difference / variance.sqrt().clamp(min=rounding)
    return MMDTest(statistic.to(wide), torch.special.ndtr(-statistic))
