"""mmd2: known values, estimators, derivatives, and what it refuses."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch
from cases import DTYPES, assert_same_bits, assert_same_error, compile_once, leaf, samples
from hypothesis import given
from hypothesis import strategies as st
from tolerances import KNOWN, assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import mmd2, nn, use_backend
from wgan_kernels.kernels import RBF, InverseMultiquadric, Kernel

KERNELS = [RBF(1.3), InverseMultiquadric([0.5, 2.0, 8.0]), RBF((0.5, 1.0, 4.0))]
ESTIMATORS = ("unbiased", "biased")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small sums on a busy machine wait for the second thread longer than they take; tests of threads set their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def value_of(kernel: Kernel, s: Tensor) -> Tensor:
    if isinstance(kernel, RBF):
        return sum(torch.exp(-s / (2 * bandwidth**2)) for bandwidth in kernel.components(1).params)
    return sum(scale / (scale + s) for scale in kernel.components(1).params)


def pair_by_pair(x: Tensor, y: Tensor, kernel: Kernel, estimator: str) -> Tensor:
    """The definition, by differences of points."""

    def mean(a: Tensor, b: Tensor, within: bool) -> Tensor:
        k = value_of(kernel, (a[:, None, :] - b[None, :, :]).square().sum(-1))
        if within and estimator == "unbiased":
            return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))
        return k.mean()

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def by_products(x: Tensor, y: Tensor, kernel: Kernel, estimator: str) -> Tensor:
    """What people write for speed: squared distances from one matrix product."""

    def mean(a: Tensor, b: Tensor, within: bool) -> Tensor:
        k = value_of(kernel, a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T)
        if within and estimator == "unbiased":
            return (k.sum() - k.diagonal().sum()) / (len(a) * (len(a) - 1))
        return k.mean()

    return mean(x, x, True) + mean(y, y, True) - 2 * mean(x, y, False)


def test_four_points_by_hand(backend: str) -> None:
    x, y = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    # 1 / (1 + s): 1/2 within x, 1/10 within y; 1, 1/10, 1/2, 1/5 between.
    unbiased = 1 / 2 + 1 / 10 - 2 * (1 + 1 / 10 + 1 / 2 + 1 / 5) / 4
    assert mmd2(x, y, InverseMultiquadric(1.0)).item() == pytest.approx(unbiased, rel=KNOWN)
    biased = (2 + 2 / 2) / 4 + (2 + 2 / 10) / 4 - 2 * 1.8 / 4
    assert mmd2(x, y, InverseMultiquadric(1.0), estimator="biased").item() == pytest.approx(biased, rel=KNOWN)
    e = [math.exp(-s / 2) for s in (0, 1, 4, 9)]
    assert mmd2(x, y, RBF(1.0)).item() == pytest.approx(e[1] + e[3] - (e[0] + e[3] + e[1] + e[2]) / 2, rel=KNOWN)


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_sets_that_are_one(backend: str, kernel: Kernel, estimator: str) -> None:
    x = samples((40, 3), torch.float64)
    value = mmd2(x, x.clone(), kernel, estimator=estimator).item()
    if estimator == "biased":
        assert value == pytest.approx(0, abs=KNOWN)
    else:  # the pairs (i, i) are missing within the sets but not between them
        k = value_of(kernel, (x[:, None] - x[None, :]).square().sum(-1))
        expected = 2 * (k.sum() - k.diagonal().sum()) / (40 * 39) - 2 * k.mean()
        assert value == pytest.approx(expected.item(), rel=100 * KNOWN) and value < 0


def test_closed_form_between_normals(native: None) -> None:
    """E k(x, y) = (b^2 / (b^2 + s^2 + t^2))^(D/2) exp(-|difference of means|^2 / (2 (b^2 + s^2 + t^2)))."""
    D, bandwidth, spread, shift = 3, 1.5, 1.4, 0.7

    def expected(variance: float, squared_distance: float) -> float:
        wide = bandwidth**2 + variance
        return (bandwidth**2 / wide) ** (D / 2) * math.exp(-squared_distance / (2 * wide))

    exact = expected(2, 0) + expected(2 * spread**2, 0) - 2 * expected(1 + spread**2, D * shift**2)

    def estimate(seed: int) -> Tensor:
        x, y = samples((900, D), torch.float64, seed=seed), samples((700, D), torch.float64, seed=100 + seed)
        return mmd2(x, spread * y + shift, RBF(bandwidth))

    estimates = torch.stack([estimate(seed) for seed in range(30)])
    error = estimates.std().item() / math.sqrt(len(estimates))
    assert estimates.mean().item() == pytest.approx(exact, abs=4 * error) and error < 0.01 * exact


def test_the_unbiased_estimator_is(native: None) -> None:
    estimates = torch.stack(
        [mmd2(samples((30, 2), torch.float64, seed=s), samples((20, 2), torch.float64, seed=999 + s), RBF(1.0))
         for s in range(600)]
    )  # fmt: skip
    error = estimates.std().item() / math.sqrt(len(estimates))
    assert abs(estimates.mean().item()) < 4 * error and estimates.min() < 0 < estimates.max()


@given(
    N=st.integers(2, 60),
    M=st.integers(2, 60),
    D=st.integers(1, 12),
    kernel=st.sampled_from(KERNELS),
    estimator=st.sampled_from(ESTIMATORS),
    seed=st.integers(0, 99),
)
def test_equals_the_definition(N: int, M: int, D: int, kernel: Kernel, estimator: str, seed: int) -> None:
    x, y = samples((N, D), torch.float64, seed=seed), samples((M, D), torch.float64, seed=seed + 1) * 1.5
    value = mmd2(x, y, kernel, estimator=estimator)
    assert_same_by_another_route(value, pair_by_pair(x, y, kernel, estimator))
    assert_same_by_another_route(mmd2(y, x, kernel, estimator=estimator), value)


@pytest.mark.parity
@pytest.mark.parametrize("estimator", ESTIMATORS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_gradients_are_as_good_as_torch(backend: str, dtype: torch.dtype, estimator: str) -> None:
    wide = torch.promote_types(dtype, torch.float32)
    for kernel in KERNELS:
        for N, M, D in ((64, 64, 8), (50, 131, 3)):
            x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 1
            ours, plain, exact = leaf(x), leaf(x), leaf(x.double())
            value = mmd2(ours, y, kernel, estimator=estimator)
            by_torch = by_products(plain.to(wide), y.to(wide), kernel, estimator)
            good = pair_by_pair(exact, y.double(), kernel, estimator)
            assert value.dtype == wide and value.shape == ()
            for result in (value, by_torch, good):
                result.backward()
            assert_as_good_as_torch(
                value.detach(), by_torch.detach(), good.detach(), terms=2.0 * len(kernel.components(1).params)
            )
            assert ours.grad.dtype == dtype
            assert_as_good_as_torch(ours.grad, plain.grad, exact.grad, terms=4 * exact.grad.abs().max().item())


@pytest.mark.parametrize("kernel", KERNELS, ids=str)
@pytest.mark.parametrize("estimator", ESTIMATORS)
def test_gradcheck_and_gradgradcheck(backend: str, kernel: Kernel, estimator: str) -> None:
    x, y = leaf(samples((5, 2), torch.float64, seed=1)), leaf(samples((4, 2), torch.float64, seed=2))
    for function in (
        lambda x, y: mmd2(x, y, kernel, estimator=estimator),
        lambda x, y: (mmd2(x, y, kernel, estimator=estimator) + 1) ** 2 * x.sum(),
    ):
        assert gradcheck(function, (x, y)) and gradgradcheck(function, (x, y))


def test_descending_the_gradient_moves_one_sample_onto_the_other(native: None) -> None:
    x, y = leaf(samples((60, 2), torch.float32, seed=1)), samples((60, 2), torch.float32, seed=2) + 3
    first = mmd2(x, y, RBF([1.0, 4.0])).item()
    optimizer = torch.optim.Adam([x], lr=0.3)
    for _ in range(60):
        optimizer.zero_grad()
        nn.MMDLoss(RBF([1.0, 4.0]))(x, y).backward()
        optimizer.step()
    assert mmd2(x, y, RBF([1.0, 4.0])).item() < 0.02 * first
    assert (x.detach().median(0).values - y.median(0).values).norm() < 0.5


def test_second_order_through_a_network(backend: str) -> None:
    """The gradient's norm as a penalty: wrong where a gradient found in the forward sweep passes for a constant."""
    z, y, theta = (samples(shape, torch.float64, seed=s) for s, shape in enumerate([(12, 3), (9, 2), (3, 2)]))
    results = []
    for function in (mmd2, lambda x, y, k: pair_by_pair(x, y, k, "unbiased")):
        t = leaf(theta)
        value = function((z @ t).tanh(), y, RBF([0.7, 2.0]))
        (grad,) = torch.autograd.grad(value**2 + value, t, create_graph=True)
        (second,) = torch.autograd.grad(grad.square().sum() + grad.sum(), t)
        results.append((value.detach(), grad.detach(), second))
    for ours, expected in zip(*results, strict=True):
        assert_same_by_another_route(ours, expected)


def test_compiled_equals_eager(backend: str) -> None:
    function = lambda x, y: mmd2(x * 2, y, KERNELS[2]).exp()  # noqa: E731
    compiled = compile_once(function, backend)
    for N in (9, 12):
        x, y = samples((N, 4), torch.float32, seed=1), samples((7, 4), torch.float32, seed=2)
        inputs = [leaf(x), leaf(x)]
        values = compiled(inputs[0], y), function(inputs[1], y)
        assert_same_by_another_route(*values)
        for value in values:
            value.backward()
        assert_same_by_another_route(inputs[0].grad, inputs[1].grad)


def test_same_bits_for_any_number_of_threads(native: None, one_and_two_threads: tuple[int, int]) -> None:
    x, y = samples((800, 30), torch.float32, seed=1), samples((700, 30), torch.float32, seed=2)
    results = []
    for threads in one_and_two_threads * 2:
        torch.set_num_threads(threads)
        point = leaf(x)
        value = mmd2(point, y, KERNELS[1])
        value.backward()
        results.append((value.detach(), point.grad))
    for value, grad in results[1:]:
        assert_same_bits(value, results[0][0])
        assert_same_bits(grad, results[0][1])


def test_memory_stays_small(native: None) -> None:
    """20,000 x 20,000 kernel values would take 1.6 GB."""
    script = """
import resource, torch
from wgan_kernels import kernels, mmd2
x, y = torch.randn(20000, 4, requires_grad=True), torch.randn(20000, 4)
mmd2(x[:500], y[:500], kernels.RBF(1.0)).backward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
mmd2(x, y, kernels.RBF(1.0)).backward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 64 * 1024, "kB more at the highest"


def test_what_it_refuses() -> None:
    x, y = torch.zeros(4, 3), torch.zeros(5, 3)
    kernel = RBF(1.0)
    assert_same_error(lambda: mmd2(x, y.double(), kernel), TypeError, "y must have the dtype of x", "float64")
    assert_same_error(lambda: mmd2(x.long(), y, kernel), TypeError, "x must be", "int64")
    assert_same_error(lambda: mmd2([1.0], y, kernel), TypeError, "x must be a torch.Tensor, got list")
    assert_same_error(lambda: mmd2(x, y, "rbf"), TypeError, "kernel must be one of wgan_kernels.kernels, got str")
    assert_same_error(lambda: mmd2(x[0], y, kernel), ValueError, "x must be points of shape", r"\(3,\)")
    assert_same_error(lambda: mmd2(x, y[:, :2], kernel), ValueError, "as many features as x, 3, got 2")
    assert_same_error(lambda: mmd2(x, y[:1], kernel), ValueError, "y must hold at least 2 points", "got 1")
    assert_same_error(lambda: mmd2(x[:0], y, kernel, estimator="biased"), ValueError, "x must hold at least 1 points")
    assert_same_error(lambda: mmd2(x, y, kernel, estimator="best"), ValueError, "estimator must be one of", "'best'")
    assert mmd2(x[:1], y[:1], kernel, estimator="biased").item() == 0


def test_kernels_check_their_numbers() -> None:
    for kernel, name in ((RBF, "bandwidth"), (InverseMultiquadric, "scale")):
        for bad, error in ((0.0, ValueError), (-1.0, ValueError), ([], ValueError), ([1.0, 0.0], ValueError),
                           ("1", TypeError), (math.nan, ValueError)):  # fmt: skip
            with pytest.raises(error, match=name):
                kernel(bad)
    assert RBF([1, 2]).components(3)[:3] == (("rbf",) * 2, (1.0,) * 2, (1.0, 2.0)) and RBF(2.0) == RBF(2.0)


def test_two_tight_clusters_far_apart_keep_their_digits() -> None:
    """Centred together they stay far from the origin, where float32 has no digits left for what is within them."""
    generator = torch.Generator().manual_seed(0)
    x = 50 + 0.01 * torch.randn(40, 1, generator=generator)
    y = -50 + 0.01 * torch.randn(30, 1, generator=generator)
    kernel = RBF(1.0)
    grads = []
    for dtype in (torch.float32, torch.float64):
        points = x.to(dtype).requires_grad_()
        grads.append(torch.autograd.grad(mmd2(points, y.to(dtype), kernel), points)[0].double())
    error = (grads[0] - grads[1]).abs().max() / grads[1].abs().max()
    assert error <= 4 * torch.finfo(torch.float32).eps, error.item()


@pytest.mark.parametrize("bandwidth", [1e-20, 1e-12, 1e21])
def test_extreme_bandwidths_give_the_limit(bandwidth: float) -> None:
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    points = torch.cat([x, x[:2]]).requires_grad_()
    value = mmd2(points, x, RBF(bandwidth))
    (grad,) = torch.autograd.grad(value, points)
    with use_backend("reference"):
        doubles = points.detach().double().requires_grad_()
        expected = mmd2(doubles, x.double(), RBF(bandwidth))
        (expected_grad,) = torch.autograd.grad(expected, doubles)
    assert torch.allclose(value.double(), expected, atol=1e-6)
    assert grad.isfinite().all()
    if bandwidth > 1:  # far below the points' spacing a gradient is rounding over bandwidth^2, whoever computes it
        assert torch.allclose(grad.double(), expected_grad, rtol=1e-3, atol=1e-30)


@pytest.mark.parametrize("bandwidth", [1e-170, 1e200])
def test_a_bandwidth_whose_square_is_lost_is_refused(bandwidth: float) -> None:
    with pytest.raises(ValueError, match="bandwidth must have a square that float64 holds"):
        RBF(bandwidth)
