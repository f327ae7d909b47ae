"""kernel_inception_distance: the formula over given subsets, torchmetrics' numbers, derivatives, the metric."""

from __future__ import annotations

import functools
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_same_error, leaf, samples
from tolerances import NO_SPREAD, TORCHMETRICS, assert_rounded, assert_same_by_another_route
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import KIDResult, kernel_inception_distance, kid, mmd2
from wgan_kernels.kernels import RBF

KERNEL = RBF(1.7)


def rbf(x: Tensor, y: Tensor) -> Tensor:
    return torch.exp(-torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist").square() / (2 * 1.7**2))


def cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def plain(
    real: Tensor, fake: Tensor, k: Callable[..., Tensor], subsets: int, size: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The definition, one subset after another."""
    values = []
    for _ in range(subsets):
        x = real[torch.randperm(len(real), generator=generator)[:size]]
        y = fake[torch.randperm(len(fake), generator=generator)[:size]]
        within = sum((k(a, a).sum() - k(a, a).diagonal().sum()) / (size * (size - 1)) for a in (x, y))
        values.append(within - 2 * k(x, y).mean())
    values = torch.stack(values)
    return values.mean(), (values - values.mean()).square().mean().sqrt()


def seeded(seed: int = 5) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(params=["one chunk", "many chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "many chunks":
        monkeypatch.setattr(kid, "_BYTES_PER_CHECKPOINT", 2 * 2 * 4 * 2 * 8)  # two subsets of four rows of two doubles


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_equals_the_definition(backend: str, dtype: torch.dtype) -> None:
    real, fake = samples((41, 5), dtype, seed=1), samples((33, 5), dtype, seed=2) + 0.5
    result = kernel_inception_distance(real, fake, subsets=7, subset_size=20, kernel=KERNEL, generator=seeded())
    expected = plain(real.double(), fake.double(), rbf, 7, 20, seeded())
    assert isinstance(result, KIDResult) and result.mean > 0 and result.std > 0
    for name, ours, exact in zip(KIDResult._fields, result, expected):
        assert ours.shape == () and ours.dtype == torch.promote_types(dtype, torch.float32)
        assert_rounded(ours, exact, name, terms=2.0) if dtype is torch.float64 else assert_same_by_another_route(
            ours.double().float(), exact.float(), name
        )


def test_the_kernel_is_the_papers_by_default() -> None:
    real, fake = samples((30, 6), torch.float64, seed=1), samples((25, 6), torch.float64, seed=2) + 1
    result = kernel_inception_distance(real, fake, subsets=3, subset_size=11, generator=seeded())
    for ours, exact in zip(result, plain(real, fake, cubic, 3, 11, seeded())):
        assert_rounded(ours, exact, terms=10.0)


def test_a_subset_of_all_rows_is_the_mmd() -> None:
    real, fake = samples((12, 3), torch.float64, seed=1), samples((12, 3), torch.float64, seed=2)
    result = kernel_inception_distance(real, fake, subsets=4, subset_size=12, kernel=KERNEL)
    assert_rounded(result.mean, mmd2(real, fake, KERNEL), terms=2.0)
    assert result.std < NO_SPREAD


def test_rows_are_drawn_once_for_each_subset_and_anew_for_the_next() -> None:
    for rows in kid._draw(9, 7, 50, 5, None):
        assert rows.shape == (50, 5) and all(len(set(subset)) == 5 for subset in rows.tolist())
        assert len({tuple(subset) for subset in rows.tolist()}) > 40
    assert kid._draw(9, 7, 50, 5, None)[0].max() == 8 and kid._draw(9, 7, 50, 5, None)[1].max() == 6


def test_a_generator_leaves_the_default_one_alone() -> None:
    real = samples((12, 3), torch.float64)
    state = torch.get_rng_state()
    first, second = (kernel_inception_distance(real, real, subsets=2, subset_size=5, kernel=KERNEL, generator=seeded())
                     for _ in range(2))  # fmt: skip
    assert torch.equal(torch.get_rng_state(), state) and first == second
    kernel_inception_distance(real, real, subsets=2, subset_size=5, kernel=KERNEL)
    assert not torch.equal(torch.get_rng_state(), state)


def test_gradcheck_and_gradgradcheck(chunks: None) -> None:
    real, fake = leaf(samples((7, 2), torch.float64, seed=1)), leaf(samples((9, 2), torch.float64, seed=2) + 1)

    def function(real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        return kernel_inception_distance(real, fake, subsets=5, subset_size=4, kernel=KERNEL, generator=seeded())

    assert gradcheck(function, (real, fake)) and gradgradcheck(function, (real, fake))
    assert gradcheck(lambda fake: function(real.detach(), fake)[0], (fake,))


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = samples((40, 3), torch.float32, seed=1), samples((50, 3), torch.float32, seed=2)
    results = []
    for size in (1 << 28, 1):
        monkeypatch.setattr(kid, "_BYTES_PER_CHUNK", size)
        monkeypatch.setattr(kid, "_BYTES_PER_CHECKPOINT", size)
        points = leaf(fake)
        result = kernel_inception_distance(real, points, subsets=6, subset_size=9, kernel=KERNEL, generator=seeded())
        (result.mean + result.std).backward()
        with torch.no_grad():
            values = kernel_inception_distance(real, fake, 6, 9, kernel=KERNEL, generator=seeded())
        results.append([*result, points.grad, *values])
    for ours, expected in zip(*results):
        assert_same_by_another_route(ours.detach(), expected.detach())


def test_compiled_equals_eager() -> None:
    """Of all rows, whatever their order: a compiled draw is another one."""
    real, fake = samples((9, 3), torch.float64, seed=1), samples((9, 3), torch.float64, seed=2) + 1
    function = functools.partial(kernel_inception_distance, subsets=2, subset_size=9, kernel=KERNEL)
    found = []
    for run in (function, torch.compile(function, fullgraph=True, backend="aot_eager")):
        points = leaf(fake.clone())
        mean, _ = run(real, points)
        mean.backward()
        found.append((mean.detach(), points.grad))
    for ours, expected in zip(*found):
        assert_same_by_another_route(ours, expected)


def test_many_chunks_keep_no_subset() -> None:
    """300 more subsets of 200 rows of 256 features: 123 MB, and half as much for gradients, if all were kept."""
    script = """
import resource, torch
from wgan_kernels import kernel_inception_distance, kernels, kid
kid._BYTES_PER_CHECKPOINT = 4 << 20
real, fake = torch.randn(300, 256), torch.randn(300, 256, requires_grad=True)
def step(subsets):
    kernel_inception_distance(real, fake, subsets=subsets, subset_size=200, kernel=kernels.RBF(16.0))[0].backward()
step(50)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
step(350)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    # What is freed goes back at once, so that the highest is what was in use and not how memory was cut up.
    environment = {**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment)
    assert int(done.stdout) < 32 * 1024, "kB more at the highest"


def test_std_without_spread_has_no_slope() -> None:
    fake = leaf(samples((8, 2), torch.float64))
    kernel_inception_distance(fake.detach() + 1, fake, subsets=1, subset_size=8, kernel=KERNEL).std.backward()
    assert fake.grad.eq(0).all()


def test_what_it_refuses() -> None:
    real, fake = torch.zeros(6, 3), torch.zeros(5, 3)

    def call(real: Any = real, fake: Any = fake, **settings: Any) -> Callable[[], Any]:
        return lambda: kernel_inception_distance(
            real, fake, **{"subsets": 2, "subset_size": 3, "kernel": KERNEL, **settings}
        )

    assert_same_error(
        call(subset_size=6), ValueError, "subset_size must be at most the number of rows of fake, 5, got 6"
    )
    assert_same_error(
        call(subset_size=7), ValueError, "subset_size must be at most the number of rows of real, 6, got 7"
    )
    assert_same_error(call(subset_size=1), ValueError, "subset_size must be at least 2, got 1")
    assert_same_error(call(subset_size=2.0), TypeError, "subset_size must be a whole number, got float")
    assert_same_error(call(subsets=0), ValueError, "subsets must be at least 1, got 0")
    assert_same_error(call(subsets=True), TypeError, "subsets must be a whole number, got bool")
    assert_same_error(call(fake=fake.double()), TypeError, "fake must have the dtype of real")
    assert_same_error(call(fake=fake[:, :2]), ValueError, "fake must have as many features as real, 3, got 2")
    assert_same_error(call(real=real[0]), ValueError, r"real must be points of shape", r"\(3,\)")
    assert_same_error(call(kernel="cubic"), TypeError, "kernel must be one of wgan_kernels.kernels, got str")


# ---- torchmetrics


class Features(nn.Module):
    """What torchmetrics calls a network: the features are there already."""

    num_features = 6

    def forward(self, x: Tensor) -> Tensor:
        return x


@pytest.mark.parametrize("default", [False, True], ids=["rbf", "polynomial"])
def test_gives_the_number_of_torchmetrics(default: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = pytest.importorskip("torchmetrics.image.kid")
    if not default:
        monkeypatch.setattr(theirs, "poly_kernel", lambda x, y, *settings: rbf(x, y))
    from wgan_kernels.metrics import KernelInceptionDistance

    real, fake = samples((60, 6), torch.float64, seed=1), samples((45, 6), torch.float64, seed=2) + 0.5
    kernel = None if default else KERNEL
    other = theirs.KernelInceptionDistance(Features(), subsets=9, subset_size=21).set_dtype(torch.float64)
    ours = KernelInceptionDistance(subsets=9, subset_size=21, kernel=kernel)
    for metric in (other, ours):
        for batch in real.split(16):
            metric.update(batch, real=True)
        for batch in fake.split(20):
            metric.update(batch, real=False)
    torch.manual_seed(3)
    expected = other.compute()
    torch.manual_seed(3)
    found = ours.compute()
    torch.manual_seed(3)
    function = kernel_inception_distance(real, fake, subsets=9, subset_size=21, kernel=kernel)
    for result in (found, function):
        assert result.mean.item() == pytest.approx(expected[0].item(), rel=TORCHMETRICS)
        assert result.std.item() == pytest.approx(expected[1].item(), rel=TORCHMETRICS)


def test_the_metric_forgets_and_is_kept() -> None:
    pytest.importorskip("torchmetrics")
    from wgan_kernels.metrics import KernelInceptionDistance

    real, fake = samples((30, 4), torch.float32, seed=1), leaf(samples((20, 4), torch.float32, seed=2) + 1)
    metric = KernelInceptionDistance(3, 10, kernel=KERNEL, seed=1, reset_real_features=False)
    assert_same_error(metric.compute, ValueError, "there are no real features yet")
    metric.update(real, real=True)
    metric.update(fake, real=False)
    value = metric.compute()
    assert value.mean > 0 and not value.mean.requires_grad
    assert pickle.loads(pickle.dumps(metric)).compute() == value
    metric.reset()
    assert_same_error(metric.compute, ValueError, "there are no fake features yet")
    metric.update(fake, real=False)
    assert metric.compute() == value
    everything = KernelInceptionDistance(3, 10, kernel=KERNEL)
    batch = real.clone()
    assert everything(batch, real=True) is None and everything(fake, real=False) is None
    batch.zero_()  # a buffer that is used again
    assert torch.equal(everything.real_features[0], real) and len(everything.real_features) == 1
    everything.reset()
    everything.update(real, real=True)
    everything.reset()
    assert everything.real_features == []
    assert_same_error(lambda: KernelInceptionDistance(kernel="rbf"), TypeError, "kernel must be one of")
    assert_same_error(lambda: KernelInceptionDistance(seed="a"), TypeError, "seed must be a whole number")
    assert_same_error(lambda: metric.update(fake[0], real=True), ValueError, r"features must have shape", r"\(4,\)")
    assert_same_error(lambda: metric.update(fake, real=1), TypeError, "real must be True or False, got int")


def test_without_torchmetrics_the_package_works_and_the_metric_says_what_it_needs() -> None:
    script = """
import sys
import wgan_kernels
assert "torchmetrics" not in sys.modules
sys.modules["torchmetrics"] = None
try:
    import wgan_kernels.metrics
except ImportError as error:
    assert "pip install torchmetrics" in str(error), error
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", script], check=True)
