"""Tests of two samples: p-values against loops over relabellings, their level, their power, and who draws numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_error, samples
from tolerances import KNOWN, PERMUTED, STATISTIC, assert_same_by_another_route
from torch import Tensor

from wgan_kernels import MMDTest, mmd2, mmd_aggregated_test, mmd_relative_test, mmd_test
from wgan_kernels.kernels import RBF, InverseMultiquadric, Kernel, Linear, Polynomial
from wgan_kernels.relabelling import memberships, permuted_mmd2

DOUBLE = torch.float64
KERNEL = RBF(1.3)
TIE = 100 * KNOWN  # how far apart equal statistics may come out


def k(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-(x[:, None] - y[None]).square().sum(-1) / (2 * 1.3**2))


def off_diagonal(x: Tensor) -> Tensor:
    return k(x, x) - torch.eye(len(x), dtype=x.dtype)


def unbiased(x: Tensor, y: Tensor) -> Tensor:
    n, m = len(x), len(y)
    return off_diagonal(x).sum() / (n * (n - 1)) + off_diagonal(y).sum() / (m * (m - 1)) - 2 * k(x, y).mean()


def points(N: int, M: int, dtype: torch.dtype = DOUBLE) -> tuple[Tensor, Tensor]:
    return samples((N, 2), dtype, seed=N), samples((M, 2), dtype, seed=100 + M) + 0.4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def assert_uniform(p_values: Tensor, permutations: int) -> None:
    """Every share 1/(P + 1), ... comes as often as the next, but for four standard deviations."""
    count, steps = len(p_values), permutations + 1
    assert abs(p_values.mean().item() - (steps + 1) / (2 * steps)) < 4 * (1 / 12 / count) ** 0.5
    for level in (1, steps // 4, steps // 2):
        share = level / steps
        found = (p_values <= share + TIE).double().mean().item()
        assert abs(found - share) < 4 * (share * (1 - share) / count) ** 0.5, (level, found, share)


@pytest.mark.parametrize(("N", "M"), [(2, 2), (5, 9), (8, 8), (11, 3)])
def test_permutations_one_by_one(backend: str, N: int, M: int) -> None:
    x, y = points(N, M)
    result = mmd_test(x, y, KERNEL, permutations=30, generator=generator())
    first, second = (x, y) if N <= M else (y, x)
    joined, draw, size = torch.cat([first, second]), generator(), min(N, M)
    statistics = []
    for _ in range(30):
        order = torch.randperm(N + M, generator=draw)
        statistics.append(unbiased(joined[order[:size]], joined[order[size:]]))
    larger = (torch.stack(statistics) >= unbiased(x, y) - TIE).sum().item()
    assert isinstance(result, MMDTest)
    assert result.p_value.item() == (larger + 1) / 31
    assert_same_by_another_route(result.statistic, mmd2(x, y, KERNEL))
    if N != M:
        assert mmd_test(y, x, KERNEL, permutations=30, generator=generator()).p_value == result.p_value


def test_swapped_signs_one_by_one(backend: str) -> None:
    x, y = points(9, 9)
    result = mmd_test(x, y, KERNEL, permutations=40, method="wild_bootstrap", generator=generator())
    h = k(x, x) + k(y, y) - k(x, y) - k(x, y).T
    h = h - torch.diag(h.diagonal())
    flips = torch.randint(0, 2, (9, 40), generator=generator(), dtype=torch.int8).double() * 2 - 1
    statistics = ((h @ flips) * flips).sum(0) / 72
    assert_same_by_another_route(result.statistic, h.sum() / 72)
    assert result.p_value.item() == ((statistics >= h.sum() / 72 - TIE).sum().item() + 1) / 41


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("method", ["permutation", "wild_bootstrap"])
def test_labels_that_say_the_same_count(backend: str, method: str, dtype: torch.dtype) -> None:
    """Two points against two far away: a third of all permutations, and half of all swaps, leave them apart."""
    x, y = samples((2, 3), dtype, seed=1), samples((2, 3), dtype, seed=2) + 8
    result = mmd_test(x, y, RBF(3.0), permutations=600, method=method, generator=generator())
    share = 1 / 3 if method == "permutation" else 1 / 2
    assert abs(result.p_value.item() - share) < 4 * (share * (1 - share) / 600) ** 0.5
    assert result.p_value.dtype == DOUBLE and result.statistic.dtype == torch.promote_types(dtype, torch.float32)


@pytest.mark.parametrize("dtype", [DOUBLE, torch.float32])
@pytest.mark.parametrize("n", [3, 60, 800])
def test_rounding_is_told_from_differences(backend: str, n: int, dtype: torch.dtype) -> None:
    """Samples that change places are as far apart as before; others differ by about 1 / n."""
    x, y = samples((n, 3), dtype, seed=1), samples((n, 3), dtype, seed=2)
    labels = memberships(n, n, 9, x, generator())
    for kernel in (KERNEL, InverseMultiquadric([0.1, 10.0])):
        statistics = permuted_mmd2(torch.cat([x, y]), torch.cat([labels, 1 - labels], 1), n, kernel)
        there, back = statistics.values.split(10)
        assert (there - back).abs().max() <= statistics.rounding / 4
        assert statistics.rounding < PERMUTED / n


def test_equal_points_give_one() -> None:
    x = torch.ones(6, 2)
    for method in ("permutation", "wild_bootstrap"):
        assert mmd_test(x, x, KERNEL, permutations=20, method=method).p_value.item() == 1
    assert mmd_aggregated_test(x, x, [KERNEL, RBF(2.0)], permutations=20).p_value.item() == 1
    relative = mmd_relative_test(x, x, x, KERNEL)
    assert relative.statistic.item() == 0 and relative.p_value.item() == 0.5


def test_a_small_sample_against_a_large_one_keeps_its_digits() -> None:
    x, y = samples((3000, 2), torch.float32, seed=1), samples((4, 2), torch.float32, seed=2) + 1
    narrow, wide = (mmd_test(a, b, KERNEL, permutations=50, generator=generator()) for a, b in ((x, y), (y, x)))
    exact = mmd_test(x.double(), y.double(), KERNEL, permutations=50, generator=generator())
    assert narrow.p_value == wide.p_value == exact.p_value
    assert_same_by_another_route(narrow.statistic, exact.statistic.float())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_nan_is_not_hidden(bad: float) -> None:
    x, y = points(6, 6)
    x[2, 1] = bad
    for method in ("permutation", "wild_bootstrap"):
        assert mmd_test(x, y, KERNEL, permutations=9, method=method).p_value.isnan()
    assert mmd_aggregated_test(x, y, [KERNEL], permutations=9).p_value.isnan()


@pytest.mark.parametrize("method", ["permutation", "wild_bootstrap", "aggregated"])
def test_p_values_of_equal_distributions_are_uniform(method: str) -> None:
    P, trials, draw = 19, 300, generator(5)
    x, y = samples((trials, 10, 1), DOUBLE, seed=1), samples((trials, 10, 1), DOUBLE, seed=2)
    if method == "aggregated":
        grid = [RBF(0.2), RBF(1.0), RBF(5.0)]
        results = [mmd_aggregated_test(a, b[:8], grid, permutations=P, generator=draw) for a, b in zip(x, y)]
        p_values = torch.stack([each.p_value for each in results])
        # Ties between smallest p-values make the test careful, by little.
        assert (p_values <= 0.25 + TIE).double().mean() < 0.25 + 4 * (0.1875 / trials) ** 0.5
        assert 0.5 < p_values.mean() < 0.65
        return
    b = y if method == "wild_bootstrap" else y[:, :7]
    results = [mmd_test(*each, KERNEL, permutations=P, method=method, generator=draw) for each in zip(x, b)]
    assert_uniform(torch.stack([each.p_value for each in results]), P)


def test_samples_that_differ_are_told_apart() -> None:
    x, y = samples((40, 3), torch.float32, seed=1), samples((40, 3), torch.float32, seed=2) + 1
    for method in ("permutation", "wild_bootstrap"):
        assert mmd_test(x, y, RBF(1.0), permutations=199, method=method).p_value.item() == 1 / 200
    kernels = [RBF(0.01), InverseMultiquadric(3.0), RBF(100.0)]
    result = mmd_aggregated_test(x, y, kernels, permutations=199)
    assert result.p_value.item() <= 0.02 and result.p_values[0] > 0.05
    assert result.p_values.shape == (3,) and result.p_values[1].item() == 1 / 200


def test_aggregation_shares_the_permutations_of_each_kernel(backend: str) -> None:
    x, y = points(9, 12)
    kernels = [RBF(0.3), KERNEL, InverseMultiquadric([1.0, 4.0])]
    result = mmd_aggregated_test(x, y, kernels, permutations=60, generator=generator())
    alone = [mmd_test(x, y, kernel, permutations=60, generator=generator()).p_value for kernel in kernels]
    assert_same_by_another_route(result.p_values, torch.stack(alone))
    assert result.p_values.min() <= result.p_value
    one = mmd_aggregated_test(x, y, kernels[:1], permutations=60, generator=generator())
    assert_same_by_another_route(one.p_value, alone[0])


def test_generators() -> None:
    x, y = points(8, 8)
    calls = [
        lambda **more: mmd_test(x, y, KERNEL, permutations=50, **more),
        lambda **more: mmd_test(x, y, KERNEL, permutations=50, method="wild_bootstrap", **more),
        lambda **more: mmd_aggregated_test(x, y, [KERNEL], permutations=50, **more),
    ]
    for call in calls:
        before = torch.get_rng_state()
        first, second = (call(generator=generator(3)).p_value for _ in range(2))
        assert torch.equal(torch.get_rng_state(), before) and first == second
        others = {call(generator=generator(seed)).p_value.item() for seed in range(6)}
        assert len(others) > 1
        call()
        assert not torch.equal(torch.get_rng_state(), before)


def test_no_graph_is_made() -> None:
    x, y = (each.requires_grad_() for each in points(5, 5))
    assert not mmd_test(x, y, KERNEL, permutations=5).statistic.requires_grad
    assert not mmd_relative_test(x, y, x.detach() + 1, KERNEL).statistic.requires_grad


def plain_relative(x: Tensor, y: Tensor, z: Tensor) -> Tensor:
    """The difference over the root of Bounliphone's variance, as one of sums over single points."""

    def means(of: Tensor) -> tuple[Tensor, Tensor]:
        return off_diagonal(of).sum(1) / (len(of) - 1), k(of, x).mean(1)

    (yy, yx), (zz, zx) = means(y), means(z)
    by_x = k(x, z).mean(1) - k(x, y).mean(1)
    variance = 4 * (by_x.var() / len(x) + (yy - yx).var() / len(y) + (zz - zx).var() / len(z))
    return (unbiased(x, y) - unbiased(x, z)) / variance.sqrt()


@pytest.mark.parametrize("sizes", [(5, 5, 5), (9, 4, 13), (2, 3, 2)])
def test_relative_statistic(backend: str, sizes: tuple[int, ...]) -> None:
    x, y, z = (samples((size, 2), DOUBLE, seed=seed) + 0.2 * seed for seed, size in enumerate(sizes))
    result = mmd_relative_test(x, y, z, KERNEL)
    expected = plain_relative(x, y, z)
    assert_same_by_another_route(result.statistic, expected)
    assert_same_by_another_route(result.p_value, torch.distributions.Normal(0.0, 1.0).cdf(-expected))
    reversed_test = mmd_relative_test(x, z, y, KERNEL)
    assert_same_by_another_route(reversed_test.p_value, 1 - result.p_value)


def test_relative_p_values_where_both_are_as_far() -> None:
    """x about 0, y about 1 and z about -1: a normal statistic, of the spread that it is divided by."""
    trials, N = 250, 60
    x, y, z = (samples((trials, N, 1), DOUBLE, seed=seed) + mean for seed, mean in enumerate((0.0, 1.0, -1.0)))
    results = [mmd_relative_test(*each, KERNEL) for each in zip(x, y[:, :50], z)]
    statistics = torch.stack([each.statistic for each in results])
    assert abs(statistics.mean()) < 4 / trials**0.5 and abs(statistics.std() - 1) < 4 / (2 * trials) ** 0.5
    shares = torch.stack([each.p_value for each in results])
    assert abs((shares < 0.1).double().mean() - 0.1) < 4 * (0.09 / trials) ** 0.5


def test_the_closer_of_two_is_found() -> None:
    x, y, z = (samples((80, 2), torch.float32, seed=seed) + mean for seed, mean in enumerate((0.0, 1.5, 0.5)))
    result = mmd_relative_test(x, y, z, KERNEL)
    assert result.statistic > 3 and result.p_value < 0.001 and result.p_value.dtype == DOUBLE


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"method": "bootstrap"}, ValueError, ["method must be one of 'permutation', 'wild_bootstrap'", "'bootstrap'"]),
        ({"method": "wild_bootstrap"}, ValueError, ["y must hold as many points as x", "wild_bootstrap", "5, got 6"]),
        ({"permutations": 0}, ValueError, ["permutations must be at least 1, got 0"]),
        ({"permutations": 10.0}, TypeError, ["permutations must be a whole number, got float"]),
        ({"x": torch.ones(1, 3)}, ValueError, ["x must hold at least 2 points, got 1"]),
        ({"x": torch.ones(2, 5, 3)}, ValueError, ["x must be points of shape", r"\(2, 5, 3\)"]),
        ({"y": torch.ones(6, 2)}, ValueError, ["y must have as many features as x, 3, got 2"]),
        ({"kernel": "rbf"}, TypeError, ["kernel must be one of wgan_kernels.kernels, got str"]),
    ],
)
def test_what_mmd_test_refuses(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    arguments = {"x": torch.ones(5, 3), "y": torch.ones(6, 3), "kernel": KERNEL, **change}
    assert_same_error(lambda: mmd_test(**arguments), error, *words)


def test_what_the_others_refuse() -> None:
    x, y = torch.ones(5, 3), torch.ones(6, 3)
    grid = [KERNEL, 1.0]
    assert_same_error(lambda: mmd_aggregated_test(x, y, KERNEL), TypeError, "kernels must be a sequence", "got RBF")
    assert_same_error(lambda: mmd_aggregated_test(x, y, []), ValueError, "kernels must hold at least one kernel")
    assert_same_error(lambda: mmd_aggregated_test(x, y, grid), TypeError, r"kernels\[1\] must be one", "float")
    assert_same_error(lambda: mmd_aggregated_test(x, y[0], grid[:1]), ValueError, "y must be points")
    call = mmd_relative_test
    assert_same_error(lambda: call(x, y, y[:1], KERNEL), ValueError, "z must hold at least 2 points, got 1")
    assert_same_error(lambda: call(x, y, y.double(), KERNEL), TypeError, "z must have the dtype of x")
    assert_same_error(lambda: call(x, y, x, 1.0), TypeError, "kernel must be one of", "float")


@pytest.mark.parametrize(("kernel", "mean"), [(Linear(), 1000.0), (Polynomial(2), 100.0), (RBF(300.0), 0.0)])
def test_values_that_are_large_beside_their_differences(native: None, kernel: Kernel, mean: float) -> None:
    """Float32 points give the p-values of the same points in float64, also of kernels that hardly change."""
    x, y = samples((100, 3), torch.float32, seed=1) + mean, samples((100, 3), torch.float32, seed=2) + mean + 0.6
    for method in ("permutation", "wild_bootstrap"):
        found, exact = (
            mmd_test(a, b, kernel, permutations=200, method=method, generator=torch.Generator().manual_seed(0))
            for a, b in ((x, y), (x.double(), y.double()))
        )
        assert found.p_value == exact.p_value < 0.2, method
    tests = [mmd_relative_test(a, b, a[:50] + 1.0, kernel) for a, b in ((x, y), (x.double(), y.double()))]
    assert tests[0].statistic.item() == pytest.approx(tests[1].statistic.item(), rel=STATISTIC)


def test_relative_statistic_of_equal_points() -> None:
    same = torch.full((10, 2), 0.1, dtype=torch.float64)
    test = mmd_relative_test(same, same[:7], same[:5], RBF(0.7) + Linear())
    assert abs(test.statistic) < 1 and 0.1 < test.p_value < 0.9
