"""mmd2 with sums of kernels, and its second derivative, against the eager lines that people write.

Fresh memory makes eager PyTorch look bad at large sizes: run with THP_MEM_ALLOC_ENABLE=1 in the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest
from wgan_kernels import kernels


def eager(x: Tensor, y: Tensor, value_of: Callable[[Tensor], Tensor]) -> Tensor:
    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return value_of((a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_(min=0))

    n, m = len(x), len(y)
    k_xx, k_yy, k_xy = matrix(x, x), matrix(y, y), matrix(x, y)
    within_x = (k_xx.sum() - k_xx.diagonal().sum()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.diagonal().sum()) / (m * (m - 1))
    return within_x + within_y - 2 * k_xy.mean()


def rbf(bandwidth: float) -> Callable[[Tensor], Tensor]:
    return lambda s: torch.exp(s * (-0.5 / bandwidth**2))


def inverse_multiquadrics(scales: Sequence[float]) -> Callable[[Tensor], Tensor]:
    return lambda s: sum(scale / (scale + s) for scale in scales)


def bench_seven_inverse_multiquadrics(record) -> None:
    n, d = 1024, 64
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.2
    scales = [2 * d * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)]
    kernel, value_of = kernels.InverseMultiquadric(scales), inverse_multiquadrics(scales)
    contenders = {
        contest.OURS: lambda: torch.autograd.grad(wk.mmd2(x, y, kernel), x),
        "eager": lambda: torch.autograd.grad(eager(x, y, value_of), x),
    }
    row = contest.hold(f"mmd2, seven IMQ forward + backward, n = m = {n}, d = {d}", contenders, rounds=20)
    record(row, contenders[contest.OURS])


def bench_second_derivative(record) -> None:
    n, d = 256, 32
    x, y, u = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.2, torch.randn(n, d)
    kernel, value_of = kernels.RBF(d**0.5), rbf(d**0.5)

    def second(value: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        (first,) = torch.autograd.grad(value(), x, create_graph=True)
        return torch.autograd.grad((first * u).sum(), x)

    contenders = {
        contest.OURS: lambda: second(lambda: wk.mmd2(x, y, kernel)),
        "eager": lambda: second(lambda: eager(x, y, value_of)),
    }
    row = contest.hold(f"mmd2 RBF, second derivative, n = m = {n}, d = {d}", contenders, tolerance=1e-3, rounds=40)
    record(row, contenders[contest.OURS])
