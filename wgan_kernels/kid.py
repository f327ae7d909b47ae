"""The kernel inception distance: squared maximum mean discrepancies of random subsets of two sets of features."""

from __future__ import annotations

import functools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import embedding
from torch.utils.checkpoint import checkpoint

from . import _checks, kernels
from .kernels import Kernel
from .pair_sums import weighted_sum
from .samples import check_kernel, check_points

# Of the subsets' features that are gathered at a time on the CPU: so little that the allocator keeps the memory, or so
# much where each time is computed twice.
_BYTES_PER_CHUNK, _BYTES_PER_CHECKPOINT = 16 << 20, 256 << 20


class KIDResult(NamedTuple):
    """Over the subsets, () each, float64 for float64 features, else float32."""

    mean: Tensor
    std: Tensor


def kernel_inception_distance(
    real: Tensor,
    fake: Tensor,
    subsets: int = 100,
    subset_size: int = 1000,
    *,
    kernel: Kernel | None = None,
    generator: torch.Generator | None = None,
) -> KIDResult:
    """Kernel inception distance of two sets of features: the unbiased MMD^2 of random subsets, its mean and spread.

    mean = sum_s MMD^2_s / S,  std = sqrt(sum_s (MMD^2_s - mean)^2 / S),  MMD^2_s = mmd2 of the s-th pair of subsets

    Args:
        real: (N, D) features, float64, float32, bfloat16 or float16; those of a network, such as Inception's last
            pooling layer, are for the caller to compute.
        fake: (M, D) features of the same dtype and device; M may differ from N.
        subsets: S, how many pairs of subsets.
        subset_size: rows of each subset, drawn without replacement; at least 2 and at most N and M.
        kernel: one of `wgan_kernels.kernels`; None takes (x . y / D + 1)^3, as the paper does.
        generator: draws the subsets; None takes the CPU's default one. Both are drawn as torchmetrics draws them, so
            that the same seed gives its number.

    Returns:
        KIDResult(mean, std), () each, float64 for float64 features, else float32. The mean may be negative; it is 0 in
        expectation for equal distributions.

    Raises:
        TypeError: real or fake is not a dense floating tensor, their dtypes differ, kernel is not a kernel, or a number
            of subsets or rows is not a whole one.
        ValueError: real or fake is not two-dimensional, D or the device differs, or a number is out of its range.

    Differentiable twice by real, fake and the kernel's parameters, with the subsets held fixed; std where it is 0 has
    derivative 0. All subsets are one call of the kernels on CUDA. On the CPU they are gathered 16 MB at a time, or
    256 MB where gradients are wanted; a backward pass over several times computes each again rather than keep them all.
    Deterministic for a given generator state, as mmd2 is.
    Source: Binkowski et al. 2018, "Demystifying MMD GANs", section 4 and appendix D.
    """
    check_points({"real": real, "fake": fake})
    _checks.positive_integer("subsets", subsets)
    _check_subset_size(subset_size, real, fake)
    _checks.generator(generator)
    kernel = kernels.Polynomial() if kernel is None else kernel
    check_kernel(kernel)
    of_real, of_fake = (rows.to(real.device) for rows in _draw(len(real), len(fake), subsets, subset_size, generator))
    wanted = _wants_gradient(real, fake, kernel)
    chunks = _chunks(real, subsets, subset_size, _BYTES_PER_CHECKPOINT if wanted else _BYTES_PER_CHUNK)
    each = functools.partial(_subset_mmd2, kernel=kernel)
    if len(chunks) > 1 and wanted:
        each = functools.partial(checkpoint, each, use_reentrant=False, preserve_rng_state=False)
    values = torch.cat([each(real, fake, of_real[chunk], of_fake[chunk]) for chunk in chunks])
    return KIDResult(values.mean(), values.std(unbiased=False))


def _wants_gradient(real: Tensor, fake: Tensor, kernel: Kernel) -> bool:
    if not torch.is_grad_enabled() or kernel.is_custom:
        return torch.is_grad_enabled()
    _, _, *own = kernel.components(real.size(1))
    return any(isinstance(each, Tensor) and each.requires_grad for each in (real, fake, *own))


def _check_subset_size(subset_size: int, real: Tensor, fake: Tensor) -> None:
    if _checks.positive_integer("subset_size", subset_size) < 2:
        raise ValueError(f"subset_size must be at least 2, got {subset_size}")
    for name, features in (("real", real), ("fake", fake)):
        if subset_size > len(features):
            raise ValueError(
                f"subset_size must be at most the number of rows of {name}, {len(features)}, got {subset_size}"
            )


def _draw(N: int, M: int, subsets: int, subset_size: int, generator: torch.Generator | None) -> tuple[Tensor, Tensor]:
    """The rows of each subset, (S, subset_size) of N and of M."""
    device = "cpu" if generator is None else generator.device
    # In turns, and whole permutations for the sake of a few rows: as torchmetrics draws them.
    drawn = [
        [torch.randperm(points, generator=generator, device=device)[:subset_size] for points in (N, M)]
        for _ in range(subsets)
    ]
    of_real, of_fake = zip(*drawn)
    return torch.stack(of_real), torch.stack(of_fake)


def _chunks(features: Tensor, subsets: int, subset_size: int, most_bytes: int) -> list[slice]:
    size = subsets
    if features.is_cpu:
        size = max(most_bytes // (2 * subset_size * max(features.size(1), 1) * features.element_size()), 1)
    return [slice(first, first + size) for first in range(0, subsets, size)]


def _subset_mmd2(real: Tensor, fake: Tensor, of_real: Tensor, of_fake: Tensor, kernel: Kernel) -> Tensor:
    """(S,), of the given rows."""
    n = of_real.size(1)
    weights = (1 / (n * (n - 1)), 1 / (n * (n - 1)), -2 / n**2)
    # embedding gathers rows, and its derivative adds them up in a fixed order, on CUDA too.
    return weighted_sum(embedding(of_real, real), embedding(of_fake, fake), kernel, weights)
