"""mmd2 with an RBF kernel, forward and backward, against the lines that people write, libraries and the floor.

For the peers' sake run it with THP_MEM_ALLOC_ENABLE=1 too: at large n eager PyTorch otherwise waits for fresh memory.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest, peers, roofline
from benchmarks.bench_kernel_sums import eager, rbf

Function = Callable[[Tensor, Tensor], Tensor]


def floor_seconds(n: int, d: int) -> float:
    """11 n^2 d operations as fast as torch.mm and 3.5 n^2 exponentials as fast as torch.exp."""
    return 11 * n * n * d / roofline.matrix_product_rate() + 3.5 * n * n / roofline.exponential_rate()


def forward_backward(function: Function, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    value = function(x, y)
    (grad,) = torch.autograd.grad(value, x)
    return value, grad


def hold(
    case: str,
    functions: dict[str, Function | None],
    exact: Function,
    x: Tensor,
    y: Tensor,
    **settings: object,
) -> tuple[contest.Row, Callable[[], object]]:
    """A contest of functions of two samples, each held first to what `exact` gives in float64."""

    def check() -> dict[str, object]:
        # The value is a small difference of means: held to the size of these. The gradients are held to their own.
        expected = forward_backward(exact, x.detach().double().requires_grad_(), y.double())
        results = {"float64": expected[1].float()}
        for name, function in functions.items():
            if function is not None:
                value, grad = forward_backward(function, x, y)
                assert abs(value.item() - expected[0].item()) < 1e-5, name
                results[name] = grad
        return results

    contenders = {
        name: None if function is None else functools.partial(forward_backward, function, x, y)
        for name, function in functions.items()
    }
    row = contest.hold(case, contenders, check=check, tolerance=1e-3, **settings)
    return row, contenders[contest.OURS]


@pytest.mark.parametrize(
    ("n", "d", "bars", "rounds"),
    [
        (64, 8, {"eager": 5.0}, 400),
        (1024, 64, {"eager": 2.5, "KeOps": 30.0}, 40),
        (4096, 64, {"floor": 1.0, "eager": 4.0, "KeOps": 50.0}, 9),
    ],
    ids=["n=64", "n=1024", "n=4096"],
)
def bench_forward_backward(record, n: int, d: int, bars: dict[str, float], rounds: int) -> None:
    bandwidth = 3.0
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.3
    kernel, plain = wk.kernels.RBF(bandwidth), functools.partial(eager, value_of=rbf(bandwidth))
    functions = {
        contest.OURS: lambda x, y: wk.mmd2(x, y, kernel),
        "eager": plain,
        "compiled": torch.compile(plain, fullgraph=True, dynamic=False),
    }
    if "KeOps" in bars:
        functions["KeOps"] = peers.keops_mmd2(bandwidth)
    case = f"mmd2 RBF forward + backward, n = m = {n}, d = {d}"
    floor = floor_seconds(n, d) if "floor" in bars else None
    record(*hold(case, functions, plain, x, y, floor=floor, bars=bars, rounds=rounds))


def bench_many_features(record) -> None:
    n, d = 4096, 2048
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.05
    kernel, plain = wk.kernels.RBF(d**0.5), functools.partial(eager, value_of=rbf(d**0.5))
    functions = {contest.OURS: lambda x, y: wk.mmd2(x, y, kernel), "eager": plain}
    case = f"mmd2 RBF forward + backward, n = m = {n}, d = {d}"
    record(*hold(case, functions, plain, x, y, floor=floor_seconds(n, d), bars={"floor": 1.1}, rounds=3))


@pytest.mark.parametrize(("n", "rounds"), [(1024, 40), (4096, 9)], ids=["n=1024", "n=4096"])
def bench_biased(record, n: int, rounds: int) -> None:
    """geomloss has the biased estimate only."""
    d, bandwidth = 64, 3.0
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.3
    kernel, plain = wk.kernels.RBF(bandwidth), functools.partial(eager, value_of=rbf(bandwidth), diagonal=True)
    functions = {
        contest.OURS: lambda x, y: wk.mmd2(x, y, kernel, estimator="biased"),
        "eager": plain,
        "geomloss": peers.geomloss_mmd2(bandwidth),
    }
    record(*hold(f"mmd2 RBF, biased, forward + backward, n = m = {n}, d = {d}", functions, plain, x, y, rounds=rounds))
