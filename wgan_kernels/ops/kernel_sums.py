"""kernel_sums: sums of a kernel function over pairs of points."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from ..reference import kernel_sums as reference


def kernel_sums(x: Tensor, y: Tensor, kind: str, params: Sequence[float], *, diagonal: bool) -> Tensor:
    """Sums of k over the pairs of x, of y, and of x with y: float64 (3,).

    x is (N, D), y is (M, D); the kernel is the sum of one kernel function over `params`. Pairs of a point with itself
    count only with `diagonal`. Differentiable any number of times.
    """
    return reference.kernel_sums(x, y, kind, params, diagonal)
