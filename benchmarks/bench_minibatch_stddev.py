"""The minibatch standard deviation layer, with its first and second derivatives, against the lines of StyleGAN2."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import wgan_kernels as wk
from benchmarks import contest


def eager(x: Tensor, group_size: int = 4) -> Tensor:
    N, C, H, W = x.shape
    y = x.reshape(group_size, -1, 1, C, H, W)
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt()
    y = y.mean(dim=[2, 3, 4]).reshape(-1, 1, 1, 1).repeat(group_size, 1, H, W)
    return torch.cat([x, y], dim=1)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last], ids=["NCHW", "NHWC"])
@pytest.mark.parametrize("shape", [(32, 512, 4, 4), (32, 256, 32, 32)], ids=lambda shape: "x".join(map(str, shape)))
def bench_first_and_second_derivative(record, shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    x = torch.randn(shape).to(memory_format=memory_format).requires_grad_()
    up, u = torch.randn(shape[0], shape[1] + 1, *shape[2:]), torch.randn(shape).to(memory_format=memory_format)
    layer = wk.nn.MinibatchStdDev(4)

    def derivatives(of: nn.Module) -> tuple[Tensor, ...]:
        y = of(x).square()  # or the gradient would not depend on the samples beside the layer
        (first,) = torch.autograd.grad(y, x, up, create_graph=True)
        return first, *torch.autograd.grad(first, x, u)

    contenders = {contest.OURS: lambda: derivatives(layer), "eager": lambda: derivatives(eager)}
    layout = "channels_last" if memory_format is torch.channels_last else "contiguous"
    case = f"MinibatchStdDev, both derivatives, {shape} {layout}"
    row = contest.hold(case, contenders, tolerance=1e-3, rounds=60)
    record(row, contenders[contest.OURS])
