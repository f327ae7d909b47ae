"""mmd2 with an RBF kernel, forward and backward, against the eager lines that people write and the floor.

For the peers' sake run it with THP_MEM_ALLOC_ENABLE=1 too: at large n eager PyTorch otherwise waits for fresh memory.
"""

from __future__ import annotations

import functools

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest, roofline
from benchmarks.bench_kernel_sums import eager, rbf

BANDWIDTH = 3.0
PLAIN = functools.partial(eager, value_of=rbf(BANDWIDTH))


def floor_seconds(n: int, d: int) -> float:
    """11 n^2 d operations as fast as torch.mm and 3.5 n^2 exponentials as fast as torch.exp."""
    return 11 * n * n * d / roofline.matrix_product_rate() + 3.5 * n * n / roofline.exponential_rate()


def forward_backward(function, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    value = function(x, y)
    (grad,) = torch.autograd.grad(value, x)
    return value, grad


@pytest.mark.parametrize(
    ("n", "d", "bars", "rounds"),
    [(64, 8, {"eager": 4.0}, 400), (1024, 64, {}, 40), (4096, 64, {"eager": 4.0, "floor": 1.2}, 9)],
    ids=["n=64", "n=1024", "n=4096"],
)
def bench_forward_backward(record, n: int, d: int, bars: dict[str, float], rounds: int) -> None:
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.3
    kernel = wk.kernels.RBF(BANDWIDTH)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return wk.mmd2(x, y, kernel)

    def check() -> dict[str, object]:
        # The value is a small difference of means: held to the size of these. The gradients are held to their own.
        expected = forward_backward(PLAIN, x.detach().double().requires_grad_(), y.double())
        results = {}
        for name, function in ((contest.OURS, ours), ("eager", PLAIN)):
            value, grad = forward_backward(function, x, y)
            assert abs(value.item() - expected[0].item()) < 1e-5, name
            results[name] = grad
        results["float64"] = expected[1].float()
        return results

    contenders = {
        contest.OURS: lambda: forward_backward(ours, x, y),
        "eager": lambda: forward_backward(PLAIN, x, y),
    }
    row = contest.hold(
        f"mmd2 RBF forward + backward, n = m = {n}, d = {d}",
        contenders,
        check=check,
        tolerance=1e-3,
        floor=floor_seconds(n, d) if "floor" in bars else None,
        bars=bars,
        rounds=rounds,
    )
    record(row, contenders[contest.OURS])
