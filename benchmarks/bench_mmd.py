"""mmd2 with an RBF kernel, forward and backward, against the eager lines that people write and the floor.

For the peers' sake run it with THP_MEM_ALLOC_ENABLE=1 too: at large n eager PyTorch otherwise waits for fresh memory.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest, roofline

BANDWIDTH = 3.0


def eager(x: Tensor, y: Tensor) -> Tensor:
    def kernel(a: Tensor, b: Tensor) -> Tensor:
        squared = a.square().sum(1)[:, None] + b.square().sum(1)[None, :] - 2 * a @ b.T
        return torch.exp(squared / (-2 * BANDWIDTH**2))

    n, m = len(x), len(y)
    xx, yy, xy = kernel(x, x), kernel(y, y), kernel(x, y)
    within_x = (xx.sum() - xx.diagonal().sum()) / (n * (n - 1))
    within_y = (yy.sum() - yy.diagonal().sum()) / (m * (m - 1))
    return within_x + within_y - 2 * xy.mean()


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
        expected = forward_backward(eager, x.detach().double().requires_grad_(), y.double())
        results = {}
        for name, function in ((contest.OURS, ours), ("eager", eager)):
            value, grad = forward_backward(function, x, y)
            assert abs(value.item() - expected[0].item()) < 1e-5, name
            results[name] = grad
        results["float64"] = expected[1].float()
        return results

    contenders = {
        contest.OURS: lambda: forward_backward(ours, x, y),
        "eager": lambda: forward_backward(eager, x, y),
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
