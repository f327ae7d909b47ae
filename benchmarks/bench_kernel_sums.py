"""mmd2 with sums of kernels, and its second derivative, against the eager lines that people write.

Fresh memory makes eager PyTorch look bad at large sizes: run with THP_MEM_ALLOC_ENABLE=1 in the environment.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest
from wgan_kernels import kernels


def eager(x: Tensor, y: Tensor, value_of: Callable[[Tensor], Tensor], diagonal: bool = False) -> Tensor:
    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return value_of((a.square().sum(1)[:, None] + b.square().sum(1) - 2 * a @ b.T).clamp_(min=0))

    n, m = len(x), len(y)
    k_xx, k_yy, k_xy = matrix(x, x), matrix(y, y), matrix(x, y)
    if diagonal:
        return k_xx.mean() + k_yy.mean() - 2 * k_xy.mean()
    within_x = (k_xx.sum() - k_xx.diagonal().sum()) / (n * (n - 1))
    within_y = (k_yy.sum() - k_yy.diagonal().sum()) / (m * (m - 1))
    return within_x + within_y - 2 * k_xy.mean()


def rbf(bandwidth: float) -> Callable[[Tensor], Tensor]:
    return lambda s: torch.exp(s * (-0.5 / bandwidth**2))


def inverse_multiquadrics(scales: Sequence[float]) -> Callable[[Tensor], Tensor]:
    return lambda s: sum(scale / (scale + s) for scale in scales)


@pytest.mark.parametrize(("n", "bars", "rounds"), [(1024, {}, 20), (2048, {"eager": 6.0}, 10)], ids=["1024", "2048"])
def bench_seven_inverse_multiquadrics(record, n: int, bars: dict[str, float], rounds: int) -> None:
    d = 64
    x, y = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.2
    kernel = kernels.InverseMultiquadric.for_prior(d)
    value_of = inverse_multiquadrics([2 * d * scale for scale in kernels.WAE_SCALES])
    contenders = {
        contest.OURS: lambda: torch.autograd.grad(wk.mmd2(x, y, kernel), x),
        "eager": lambda: torch.autograd.grad(eager(x, y, value_of), x),
    }
    case = f"mmd2, seven IMQ forward + backward, n = m = {n}, d = {d}"
    row = contest.hold(case, contenders, bars=bars, rounds=rounds)
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


@pytest.mark.parametrize(("n", "rounds"), [(256, 100), (2048, 20)], ids=["256", "2048"])
def bench_double_backward(record, n: int, rounds: int) -> None:
    """The double backward alone, in at most four times the time of the backward that it differentiates."""
    d = 64
    x, y, u = torch.randn(n, d, requires_grad=True), torch.randn(n, d) + 0.2, torch.randn(n, d)
    value_of = rbf(d**0.5)
    value = wk.mmd2(x, y, kernels.RBF(d**0.5))

    def backward(value: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(value, x, create_graph=True)[0]

    def double_backward(first: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(first, x, u.to(first.dtype), retain_graph=True)[0]

    first = backward(value, x)

    def check() -> dict[str, Tensor]:
        wide = x.detach().double().requires_grad_()
        first_wide = backward(eager(wide, y.double(), value_of), wide)
        torch.testing.assert_close(first.double(), first_wide, rtol=1e-3, atol=1e-3 * first_wide.abs().max().item())
        return {contest.OURS: double_backward(first, x), "float64": double_backward(first_wide, wide).float()}

    contenders = {
        contest.OURS: lambda: double_backward(first, x),
        "its backward": lambda: backward(value, x),
    }
    case = f"mmd2 RBF, double backward, n = m = {n}, d = {d}"
    row = contest.hold(case, contenders, check=check, tolerance=1e-3, bars={"its backward": 0.25}, rounds=rounds)
    record(row, contenders[contest.OURS])
