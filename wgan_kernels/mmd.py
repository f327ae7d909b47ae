"""The squared maximum mean discrepancy of two samples, their witness function, and the products it is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from . import _checks
from .estimators import estimate
from .kernels import Kernel
from .pair_sums import matvec, weighted_sum
from .progress import shown
from .samples import check_kernel, check_points, numbers_of_points

if TYPE_CHECKING:  # a build of torch may lack it
    from torch.distributed import ProcessGroup


def mmd2(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    *,
    estimator: str = "unbiased",
    block_size: int | None = None,
    x_weights: Tensor | None = None,
    y_weights: Tensor | None = None,
    group: ProcessGroup | None = None,
    progress: bool = False,
) -> Tensor:
    """Squared maximum mean discrepancy of two samples.

    unbiased: sum_{i!=j} k(x_i, x_j) / N(N - 1) + sum_{i!=j} k(y_i, y_j) / M(M - 1) - 2 sum_{i,j} k(x_i, y_j) / NM
    biased:   sum_{i,j} k(x_i, x_j) / N^2 + sum_{i,j} k(y_i, y_j) / M^2 - 2 sum_{i,j} k(x_i, y_j) / NM
    linear:   the mean of k(x_1, x_2) + k(y_1, y_2) - k(x_1, y_2) - k(x_2, y_1) over consecutive pairs
    block:    the mean of 'unbiased' over consecutive blocks

    With weights a and b of the points, and i = j left out of all sums over one sample for 'unbiased':

    sum_{i,j} a_i a_j k(x_i, x_j) / sum_{i,j} a_i a_j + sum_{i,j} b_i b_j k(y_i, y_j) / sum_{i,j} b_i b_j
        - 2 sum_{i,j} a_i b_j k(x_i, y_j) / sum_{i,j} a_i b_j

    Args:
        x: (N, D) points, or (B, N, D) for B problems at once, float64, float32, bfloat16 or float16.
        y: (M, D) or (B, M, D) points of the same dtype and device; M may differ from N.
        kernel: one of `wgan_kernels.kernels`.
        estimator: 'unbiased' (the U-statistic; its mean is 0 for equal distributions, so that it is often negative,
            and is handed out as it is), 'biased' (the V-statistic; never negative but for rounding), or, for samples
            too large for either, 'linear' (takes time O(N)) or 'block' (O(N block_size)), both unbiased and noisier.
        block_size: how many points of the smaller sample there are in a block of 'block'; round(sqrt(min(N, M))) by
            default. There are min(N, M) // block_size blocks, of N // blocks points of x and M // blocks of y; what is
            left over at the ends is dropped. 'linear' takes min(N, M) // 2 pairs of each and drops the rest. The points
            must be in random order.
        x_weights: (N,) or (B, N), of any floating dtype: how much each point of x counts, for 'unbiased' and 'biased';
            None counts all alike, and zeros leave points out, as for problems of different sizes in one batch.
        y_weights: (M,) or (B, M), likewise.
        group: a process group of torch.distributed, such as dist.group.WORLD: x and y are then the rows of this rank,
            any number of them, and the value is that of the rows of all ranks, on all ranks. The gradient by a rank's
            rows is that of the value, not divided by the number of ranks. See `wgan_kernels.ranks.mmd2`.
        progress: shows a bar (of tqdm) over the pairs done, where the compiled library works on CPU tensors for longer
            than some tenths of a second; so does a backward pass that has to go through the pairs again. Custom kernels
            and 'linear', which are plain PyTorch, have none.

    Returns:
        (), or (B,) for B problems; float64 for float64 input, else float32. Weights whose sums, which are divided
        by, are zero give infinity or NaN.

    Raises:
        TypeError: x, y or weights are not dense floating tensors, dtypes of points differ, or kernel is not a kernel.
        ValueError: x or y is neither two- nor three-dimensional, B, D or the device differs, weights do not match their
            points or come with 'linear' or 'block', block_size does not come with 'block' or is not in 2, ..., min(N,
            M), or there are too few points: 1 for 'biased', 2 for the others.

    Differentiable twice by x, y, the weights and the kernel's learned parameters; a third derivative raises. The N x M
    matrix is never stored: beside the gradients a call takes memory for a few copies of the points, in float64 with
    weights and for 'linear'. Distances are taken
    between centred points, in float32 where that leaves them enough digits and in float64 otherwise; sums run in
    float64 in a fixed order: the same input gives the same bits for any number of threads. A large call on the CPU
    hears Ctrl-C between ranges of rows, of some tenths of a second each; batches of many small problems are one range.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", lemma 6 (unbiased), equation 5 (biased) and section 6
    (linear); Zaremba et al. 2013, "B-tests: Low Variance Kernel Two-Sample Tests", section 2, with lemma 6 in each
    block, which is for N != M too.
    """
    if group is not None:
        from . import ranks

        for name, value in (("block_size", block_size), ("x_weights", x_weights), ("y_weights", y_weights)):
            if value is not None:
                raise ValueError(f"{name} must be None with group, whose estimators are 'unbiased' and 'biased'")
        return ranks.mmd2(x, y, kernel, estimator=estimator, group=group, progress=progress)
    if progress:
        with shown("mmd2"):
            return mmd2(
                x, y, kernel, estimator=estimator, block_size=block_size, x_weights=x_weights, y_weights=y_weights
            )
    biased = estimator == "biased"
    if (
        (not biased and estimator != "unbiased")
        or x_weights is not None
        or y_weights is not None
        or block_size is not None
    ):
        return estimate(x, y, kernel, estimator, block_size, x_weights, y_weights)
    n, m = numbers_of_points(x, y, least=1 if biased else 2)
    check_kernel(kernel)
    pairs_x, pairs_y = (n * n, m * m) if biased else (n * (n - 1), m * (m - 1))
    weights = (1 / pairs_x, 1 / pairs_y, -2 / (n * m))
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

    Differentiable twice by x, y and v; a third derivative by points raises unless the kernel is linear. The N x M
    matrix is never stored, and for one vector a linear kernel, or a linear part of a sum, takes no pairs but copies of
    the points in float64. Sums run in float64 in a fixed order: the same input gives the same bits for any number of
    threads.
    """
    check_points({"x": x, "y": y})
    check_kernel(kernel)
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

    Differentiable twice by z, x and y; a third derivative raises unless the kernel is linear. Deterministic,
    as kernel_matvec is.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", section 2.3; Li et al. 2017, "MMD GAN".
    """
    check_points({"z": z, "x": x, "y": y}, least={"x": 1, "y": 1})
    check_kernel(kernel)
    dtype = torch.promote_types(x.dtype, torch.float32)
    shares = [torch.full((len(of), 1), sign / len(of), dtype=dtype, device=x.device) for of, sign in ((x, 1), (y, -1))]
    return matvec(z, torch.cat([x, y]), torch.cat(shares), kernel).squeeze(1)
