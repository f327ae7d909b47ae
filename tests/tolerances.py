"""The one table of tolerances. Nothing else in the tests may hold a tolerance, and CI never loosens this one.

The rule: the error against float64 is at most FACTOR times the error that plain PyTorch makes in the same dtype, plus a
floor. Errors are measured by the largest entry, in units of the largest entry of the exact result, or of the largest
term that it is a sum of where terms may cancel.
"""

from __future__ import annotations

import torch
from torch import Tensor

FACTOR = 2.0

# Roundings (of the result's dtype, relative to its largest entry) that are forgiven even where PyTorch makes none.
# In float64 the "exact" result is itself computed in float64, by other sums, of up to 1024 additions in a row.
FLOOR = {torch.float64: 1024.0, torch.float32: 2.0, torch.bfloat16: 0.51, torch.float16: 0.51}

# Sums run in float64 for every input, so that a value in float32 is off by its own rounding only.
VALUE_FLOOR = {torch.float64: 1024.0, torch.float32: 1.0}

# Two float64 computations of one parameter gradient through a whole critic, by different formulas (absolute, with
# gradients of order 1).
EAGER_FLOAT64 = 1e-10

# Floors of a whole critic's results, for each of its layers: every one rounds what the next is computed from.
PER_LAYER = {torch.float64: 1.0, torch.float32: 4.0}

# One float32 computation by two routes of torch (compiled and eager, transformed and eager), relative to the largest.
ROUTES = {torch.float64: 1e-12, torch.float32: 2e-6}

# Kernel sums, relative to the largest entry. Answers known in closed form, in float64:
KNOWN = 1e-14
# Points of mean 100 and standard deviation 0.01, whose distances are differences of numbers 1e4 times as large:
FAR_FROM_ORIGIN = {torch.float64: 1e-9, torch.float32: 1e-5}
# An estimated variance of points of mean 100 and standard deviation 0.01 (which hold 1e-12 of their differences), for a
# kernel of inner products, relative:
VARIANCE_FAR_FROM_ORIGIN = 1e-6
# Tight clusters 1e5 spreads apart, in float32:
FAR_APART = 1e-6
# Roundings of the result's dtype where points coincide and distances are nothing but rounding:
COINCIDENT = 64.0
# Roundings in one kernel value at distances up to the kernel's scale:
KERNEL_VALUE = {torch.float64: 8.0, torch.float32: 4.0}
# Roundings of float32 in what is computed from float32 distances of points near the origin:
FLOAT32_DISTANCES = 64.0
# How much rougher first derivatives are between neighbours on a line, whose distance is a root of a difference of
# squares, and second derivatives, whose terms cancel:
ON_A_LINE, SECOND_DERIVATIVE = 100.0, 10.0
# Results in half-width floats that were rounded on the way to them:
ROUNDED_TWICE = 2.0
# Parts added up in half-width floats, with sums of order 1:
HALF_WIDTH_PARTS = 1e-3
# A mean of kernel values of order 1, whose squared distances come from float32 matrix products on a GPU:
MATRIX_PRODUCTS = {"ieee": 2e-6, "tf32": 2e-3}
# What is taken for rounding between permutations, in units of the 1 / n by which they differ:
PERMUTED = 1e-3
# A ratio of float32 points whose kernel values are large beside their differences, and a weighted MMD^2 of points far
# from the origin, relative:
STATISTIC, WEIGHTED_FAR_FROM_ORIGIN = 1e-5, 1e-4
# A spread of equal values of order 1e-1:
NO_SPREAD = 1e-15
# torchmetrics' kernel inception distance, whose sums cancel in float64, relative:
TORCHMETRICS = 1e-6
# Seconds from Ctrl-C to KeyboardInterrupt, in the middle of a call of minutes: some tenths on a machine of one's own.
INTERRUPT = 5.0


def largest(x: Tensor) -> float:
    return x.abs().max().item() if x.numel() else 0.0


def assert_as_good_as_torch(
    actual: Tensor, plain: Tensor, exact: Tensor, what: str = "result", terms: float = 0.0
) -> None:
    """The rule. actual: ours; plain: PyTorch in the same dtype; exact: PyTorch in float64. Of one shape."""
    assert actual.shape == plain.shape == exact.shape, f"{what}: {actual.shape}, {plain.shape}, {exact.shape}"
    assert exact.dtype == torch.float64
    error = largest(actual.double() - exact)
    floor = FLOOR[actual.dtype] * torch.finfo(actual.dtype).eps * max(largest(exact), terms)
    allowed = FACTOR * largest(plain.double() - exact) + floor + torch.finfo(actual.dtype).smallest_normal
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g} ({actual.dtype}, {tuple(actual.shape)})"


def assert_rounded(actual: Tensor, exact: Tensor, what: str = "value", terms: float = 0.0) -> None:
    """actual is exact but for the rounding of its own dtype."""
    assert actual.shape == exact.shape and exact.dtype == torch.float64, what
    error = largest(actual.double() - exact)
    unit = max(largest(exact), terms) if actual.dtype == torch.float64 else largest(exact)
    allowed = VALUE_FLOOR[actual.dtype] * torch.finfo(actual.dtype).eps * unit
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g} ({actual.dtype}, {tuple(actual.shape)})"


def assert_same_by_another_route(actual: Tensor, expected: Tensor, what: str = "result") -> None:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, what
    error, allowed = largest(actual - expected), ROUTES[actual.dtype] * max(1.0, largest(expected))
    assert error <= allowed, f"{what}: {error:.3g} apart, allowed {allowed:.3g}"


def assert_within_one_ulp(actual: Tensor, expected: Tensor, what: str = "result") -> None:
    """Entry by entry, at most one representable number apart."""
    assert actual.shape == expected.shape and actual.dtype == expected.dtype, what
    neighbours = [torch.nextafter(expected, torch.full_like(expected, end)) for end in (-torch.inf, torch.inf)]
    inside = (neighbours[0] <= actual) & (actual <= neighbours[1]) | (actual.isnan() & expected.isnan())
    assert inside.all(), f"{what}: {actual[~inside][:3].tolist()} for {expected[~inside][:3].tolist()}"
