"""The squared maximum mean discrepancy of two samples, their witness function, and the products it is made of."""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _checks
from .kernels import Kernel
from .pair_sums import matvec, weighted_sum
from .progress import shown

if TYPE_CHECKING:  # a build of torch may lack it
    from torch.distributed import ProcessGroup

_SILENT = nullcontext()


def mmd2(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    *,
    estimator: str = "unbiased",
    group: ProcessGroup | None = None,
    progress: bool = False,
) -> Tensor:
    """Squared maximum mean discrepancy of two samples.

    unbiased: sum_{i!=j} k(x_i, x_j) / N(N - 1) + sum_{i!=j} k(y_i, y_j) / M(M - 1) - 2 sum_{i,j} k(x_i, y_j) / NM
    biased:   sum_{i,j} k(x_i, x_j) / N^2 + sum_{i,j} k(y_i, y_j) / M^2 - 2 sum_{i,j} k(x_i, y_j) / NM

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device; M may differ from N.
        kernel: one of `wgan_kernels.kernels`.
        estimator: 'unbiased' (the U-statistic; may be negative, and its mean is 0 for equal distributions) or
            'biased' (the V-statistic; never negative).
        group: a process group of torch.distributed, such as dist.group.WORLD: x and y are then the rows of this rank,
            any number of them, and the value is that of the rows of all ranks, on all ranks. The gradient by a rank's
            rows is that of the value, not divided by the number of ranks. See `wgan_kernels.ranks.mmd2`.
        progress: shows a bar (of tqdm) over the pairs done, where the compiled library works on CPU tensors for longer
            than some tenths of a second; so does a backward pass that has to go through the pairs again.

    Returns:
        () float64 for float64 input, else float32.

    Raises:
        TypeError: x or y is not a dense floating tensor, their dtypes differ, or kernel is not a kernel.
        ValueError: x or y is not two-dimensional, D or the device differs, or there are too few points: 2 for
            'unbiased', 1 for 'biased'.

    Differentiable twice by x and y; a third derivative raises. The N x M matrix is never stored: beside the gradients a
    call takes memory for a few copies of the points. Distances are taken between centred points, in float32 where that
    leaves them enough digits and in float64 otherwise; sums run in float64 in a fixed order: the same input gives the
    same bits for any number of threads. A large call on the CPU hears Ctrl-C within some tenths of a second.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6 (unbiased) and equation 5 (biased).
    """
    if group is not None:
        from . import ranks

        return ranks.mmd2(x, y, kernel, estimator=estimator, group=group, progress=progress)
    biased = estimator == "biased"
    if not biased and estimator != "unbiased":
        _checks.choice("estimator", estimator, ("unbiased", "biased"))
    n, m = _numbers_of_points(x, y, least=1 if biased else 2)
    _check_kernel(kernel)
    pairs_x, pairs_y = (n * n, m * m) if biased else (n * (n - 1), m * (m - 1))
    weights = (1 / pairs_x, 1 / pairs_y, -2 / (n * m))
    with shown("mmd2") if progress else _SILENT:
        return weighted_sum(x, y, kernel, weights, diagonal=biased)


def kernel_matvec(x: Tensor, y: Tensor, v: Tensor, kernel: Kernel) -> Tensor:
    """A kernel matrix times vectors: out_ip = sum_j k(x_i, y_j) v_jp.

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) points of the same dtype and device.
        v: (M,) or (M, P) vectors, of any floating dtype; computed in float64 for float64 points, else in float32.
        kernel: one of `wgan_kernels.kernels`.

    Returns:
        (N,) or (N, P), float64 for float64 points, else float32.

    Raises:
        TypeError: a tensor that is not a dense floating one, dtypes of points that differ, or kernel is not a kernel.
        ValueError: x or y is not two-dimensional; D, M or the device differs.

    Differentiable twice by x, y and v; a third derivative by points raises. The N x M matrix is never stored. Sums run
    in float64 in a fixed order: the same input gives the same bits for any number of threads.
    """
    _check_points({"x": x, "y": y})
    _check_kernel(kernel)
    _checks.floating("v", v)
    _checks.same_device("x", x, "v", v)
    if v.dim() not in (1, 2) or v.size(0) != y.size(0):
        raise ValueError(f"v must have a row for each point of y, ({y.size(0)}, columns), got {tuple(v.shape)}")
    out = matvec(x, y, v if v.dim() == 2 else v.unsqueeze(1), kernel)
    return out if v.dim() == 2 else out.squeeze(1)


def witness(z: Tensor, x: Tensor, y: Tensor, kernel: Kernel) -> Tensor:
    """Where two samples differ: f(z) = mean_i k(z, x_i) - mean_j k(z, y_j), up to a factor the MMD's witness function.

    It is the critic of an MMD-GAN, so that `gradient_penalty(lambda z: witness(features(z), features(x), features(y),
    kernel), real, fake)` penalises its gradient.

    Args:
        z: (P, D) points, float64, float32, bfloat16 or float16.
        x: (N, D) points of the same dtype and device.
        y: (M, D) likewise; M may differ from N.
        kernel: one of `wgan_kernels.kernels`.

    Returns:
        (P,) float64 for float64 points, else float32: positive where x is the denser.

    Raises:
        TypeError: a tensor that is not a dense floating one, dtypes that differ, or kernel is not a kernel.
        ValueError: a tensor that is not two-dimensional, D or the device differs, or x or y holds no point.

    Differentiable twice by z, x and y; a third derivative raises. Deterministic, as kernel_matvec is.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", section 2.3; Li et al. 2017, "MMD GAN".
    """
    _check_points({"z": z, "x": x, "y": y}, least={"x": 1, "y": 1})
    _check_kernel(kernel)
    dtype = torch.promote_types(x.dtype, torch.float32)
    shares = [torch.full((len(of), 1), sign / len(of), dtype=dtype, device=x.device) for of, sign in ((x, 1), (y, -1))]
    return matvec(z, torch.cat([x, y]), torch.cat(shares), kernel).squeeze(1)


def _check_kernel(kernel: Kernel) -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel must be one of wgan_kernels.kernels, got {type(kernel).__name__}")


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
    _check_points({"x": x, "y": y}, least={"x": least, "y": least})
    return x.size(0), y.size(0)


def _check_points(points: dict[str, Tensor], least: dict[str, int] | None = None) -> None:
    """least: how many points there have to be, by name."""
    first, *_ = points
    for name, each in points.items():
        _checks.floating(name, each)
        if each.dim() != 2:
            hint = f": flatten each sample, {name}.flatten(1)" if each.dim() > 2 else ""
            raise ValueError(f"{name} must be points of shape (number, features), got {tuple(each.shape)}{hint}")
        wanted = (least or {}).get(name, 0)
        if each.size(0) < wanted:
            raise ValueError(f"{name} must hold at least {wanted} points, got {each.size(0)}")
    for name, each in points.items():
        if each.dtype != points[first].dtype:
            raise TypeError(f"{name} must have the dtype of {first}, {points[first].dtype}, got {each.dtype}")
        _checks.same_device(first, points[first], name, each)
        if each.size(1) != points[first].size(1):
            wanted = points[first].size(1)
            raise ValueError(f"{name} must have as many features as {first}, {wanted}, got {each.size(1)}")
