"""Bandwidths found from data."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _checks
from .samples import check_points

# Pairs to sample: the sampled median lies within 0.2 % of the middle of all pairs, by rank, 19 times in 20.
_PAIRS = 1 << 18
_NUMBERS_AT_ONCE = 1 << 22


@torch.no_grad()
def median_bandwidth(
    x: Tensor, y: Tensor | None = None, *, max_points: int = 5000, generator: torch.Generator | None = None
) -> float:
    """The median Euclidean distance between two points of the joined samples: `RBF(median_bandwidth(x, y))`.

    Args:
        x: (N, D) points, float64, float32, bfloat16 or float16.
        y: (M, D) further points of the same dtype and device, or None.
        max_points: for up to this many points in all, the median is that of all pairs of different points, the lower of
            the two in the middle where their number is even; for more, that of 262,144 pairs drawn at random.
        generator: where these are drawn from; by default torch's global one of the CPU.

    Returns:
        A Python number. Not differentiable.

    Raises:
        TypeError: x or y is not a dense floating tensor, their dtypes differ, or max_points is not a whole number.
        ValueError: x or y is not two-dimensional, D or the device differs, there are fewer than 2 points in all, or the
            median is no bandwidth: 0 because half of the pairs coincide, infinite, or NaN.

    Takes memory for max_points^2 / 2 distances. The same state of the generator gives the same number.
    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", section 8.
    """
    samples = {"x": x} if y is None else {"x": x, "y": y}
    check_points(samples)
    points = torch.cat(list(samples.values()))
    _checks.positive_integer("max_points", max_points)
    _checks.generator(generator)
    if len(points) < 2:
        raise ValueError(f"x must hold at least 2 points, with those of y, got {len(points)}")
    points = points.to(torch.promote_types(points.dtype, torch.float32))
    if len(points) <= max_points:
        distances = torch.nn.functional.pdist(points)
    else:
        distances = _sampled_distances(points, generator)
    median = distances.median().item()
    if median == 0:
        raise ValueError("x must hold different points, got points of which half of the pairs coincide")
    return _checks.positive("the median distance of x", median)


def _sampled_distances(points: Tensor, generator: torch.Generator | None) -> Tensor:
    count, device = len(points), torch.device("cpu") if generator is None else generator.device
    first = torch.randint(count, (_PAIRS,), generator=generator, device=device)
    steps = torch.randint(1, count, (_PAIRS,), generator=generator, device=device)  # to another point, round the end
    pairs = torch.stack([first, (first + steps) % count]).to(points.device)
    size = max(_NUMBERS_AT_ONCE // max(points.size(1), 1), 1)
    return torch.cat([(points[i] - points[j]).norm(dim=1) for i, j in zip(*(each.split(size) for each in pairs))])
