"""median_bandwidth: the median of all distances, or near it, and what has none."""

from __future__ import annotations

import pytest
import torch
from cases import assert_same_error, samples
from tolerances import FAR_FROM_ORIGIN
from torch import Tensor

from wgan_kernels import median_bandwidth, mmd2
from wgan_kernels.kernels import RBF


def distances(points: Tensor) -> Tensor:
    points = points.double()
    between = (points[:, None] - points[None]).square().sum(-1).sqrt()
    rows, columns = torch.triu_indices(len(points), len(points), 1)
    return between[rows, columns]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(("N", "M", "D"), [(2, 0, 1), (7, 4, 3), (20, 31, 2)])
def test_of_all_pairs(N: int, M: int, D: int, dtype: torch.dtype) -> None:
    x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2)
    found = median_bandwidth(x, y)
    assert type(found) is float
    eps = torch.finfo(torch.promote_types(dtype, torch.float32)).eps
    assert found == pytest.approx(distances(torch.cat([x, y])).median().item(), rel=8 * eps)
    assert median_bandwidth(torch.cat([x, y])) == found
    assert mmd2(x, x + 1, RBF(found)).isfinite()


def test_of_points_far_from_the_origin() -> None:
    x = (100 + 0.01 * samples((40, 3), torch.float64)).float()
    assert median_bandwidth(x) == pytest.approx(distances(x).median().item(), rel=FAR_FROM_ORIGIN[torch.float32])


def test_of_sampled_pairs() -> None:
    x, y = samples((300, 3), torch.float32, seed=1), samples((100, 3), torch.float32, seed=2) * 3
    before = torch.get_rng_state()
    found = [median_bandwidth(x, y, max_points=100, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), before)
    assert found[0] == found[1] != found[2]
    every = distances(torch.cat([x, y]))
    for each in found:
        assert abs((every < each).double().mean().item() - 0.5) < 0.005
    median_bandwidth(x, y, max_points=100)
    assert not torch.equal(torch.get_rng_state(), before)


def test_sampled_pairs_are_of_different_points() -> None:
    """Of two points every pair is the one."""
    assert median_bandwidth(torch.tensor([[0.0], [3.0]]), max_points=1) == 3


def test_what_it_refuses() -> None:
    x = torch.ones(5, 3)
    assert_same_error(lambda: median_bandwidth(x), ValueError, "x must hold different points", "coincide")
    assert_same_error(lambda: median_bandwidth(x[:1]), ValueError, "x must hold at least 2 points", "got 1")
    assert_same_error(lambda: median_bandwidth(x[0]), ValueError, "x must be points of shape", r"\(3,\)")
    assert_same_error(lambda: median_bandwidth(x, x[:, :2]), ValueError, "y must have as many features as x, 3, got 2")
    assert_same_error(lambda: median_bandwidth(x, x.double()), TypeError, "y must have the dtype of x", "float64")
    assert_same_error(lambda: median_bandwidth([1.0]), TypeError, "x must be a torch.Tensor")
    assert_same_error(lambda: median_bandwidth(x, max_points=0), ValueError, "max_points must be at least 1, got 0")
    assert_same_error(lambda: median_bandwidth(x / 0), ValueError, "the median distance of x", "nan")
