"""norm_penalty, forward and backward, against the eager lines that people write."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest


def eager(grad: Tensor) -> Tensor:
    return ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


@pytest.mark.parametrize(
    ("shape", "bars"),
    [((64, 3072), {"eager": 2.0}), ((256, 12288), {"eager": 4.5, "floor": 1.5})],
    ids=str,
)
def bench_forward_backward(record, shape: tuple[int, int], bars: dict[str, float]) -> None:
    grad = torch.randn(shape, requires_grad=True)
    data = grad.detach()

    def floor() -> None:
        data.sum()  # forward: one read
        data.clone()  # backward: one read, one write to memory allocated afresh

    row = contest.hold(
        f"norm_penalty forward + backward, {shape} float32",
        {
            contest.OURS: lambda: torch.autograd.grad(wk.norm_penalty(grad), grad),
            "eager": lambda: torch.autograd.grad(eager(grad), grad),
            "floor": floor,
        },
        bars=bars,
        rounds=400,
    )
    record(row, lambda: torch.autograd.grad(wk.norm_penalty(grad), grad))
