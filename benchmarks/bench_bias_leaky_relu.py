"""BiasLeakyReLU, forward, backward and double backward, against the lines that people write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from benchmarks import contest
from benchmarks.bench_closed_form import memory
from wgan_kernels.nn import BiasLeakyReLU

SLOPE, GAIN = 0.2, 2.0**0.5
Layer = Callable[[Tensor], Tensor]


def eager(x: Tensor, bias: Tensor) -> Tensor:
    return functional.leaky_relu(x + bias.view(1, -1, *[1] * (x.dim() - 2)), SLOPE) * GAIN


def layer_for(x: Tensor) -> BiasLeakyReLU:
    layer = BiasLeakyReLU(x.shape[1], SLOPE, GAIN)
    torch.nn.init.normal_(layer.bias)
    return layer


def off_the_kink(x: Tensor, bias: Tensor) -> Tensor:
    """x + bias is not so near to 0 that rounding decides on which side it is."""
    add = bias.detach().view(1, -1, *[1] * (x.dim() - 2))
    return torch.where((x + add).abs() < 1e-3, 1 - add, x)


def backward(call: Layer, x: Tensor, bias: Tensor, grad_y: Tensor) -> list[Tensor]:
    y = call(x)
    return [y, *torch.autograd.grad(y, (x, bias), grad_y)]


def double_backward(call: Layer, x: Tensor, bias: Tensor, grad_y: Tensor, along: list[Tensor]) -> list[Tensor]:
    """The second derivatives by all that a training step goes back to; PyTorch computes zeros for x and bias."""
    y = call(x)
    first = torch.autograd.grad(y, (x, bias), grad_y, create_graph=True)
    second = torch.autograd.grad(first, (grad_y, x, bias), along, allow_unused=True)
    return [y, *first, second[0]]


def inputs(shape: tuple[int, ...], memory_format: torch.memory_format) -> tuple[BiasLeakyReLU, list[Tensor]]:
    x = torch.randn(shape)
    layer = layer_for(x)
    x = off_the_kink(x, layer.bias).contiguous(memory_format=memory_format)
    return layer, [x.requires_grad_(), layer.bias, torch.randn_like(x).requires_grad_()]


SHAPES = [
    ((64, 128, 16, 16), torch.contiguous_format),
    ((64, 128, 16, 16), torch.channels_last),
    ((256, 1024), torch.contiguous_format),
]


@pytest.mark.parametrize(("shape", "memory_format"), SHAPES, ids=str)
def bench_double_backward(record, shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    layer, (x, bias, grad_y) = inputs(shape, memory_format)
    along = [torch.randn_like(x), torch.randn_like(bias)]
    calls = {
        contest.OURS: lambda: double_backward(layer, x, bias, grad_y, along),
        "eager": lambda: double_backward(lambda x: eager(x, bias), x, bias, grad_y, along),
    }
    most = {name: memory(call) for name, call in calls.items()}
    data = x.detach()

    def floor() -> None:
        # Forward reads x; the two derivatives read a gradient and y; each writes to memory allocated afresh.
        data.clone(), data.sum(), data.clone(), data.sum(), data.clone()

    name = f"BiasLeakyReLU forward + backward + double backward, {shape} {memory_format}"
    row = contest.hold(name, {**calls, "floor": floor}, bars={"eager": 2.0}, tolerance=1e-5, rounds=200)
    row.memory, row.memory_bar = most[contest.OURS] / most["eager"], 0.6
    record(row, calls[contest.OURS])


@pytest.mark.parametrize(("shape", "memory_format"), SHAPES, ids=str)
def bench_backward(record, shape: tuple[int, ...], memory_format: torch.memory_format) -> None:
    """Which torch.compile can differentiate, too."""
    layer, (x, bias, grad_y) = inputs(shape, memory_format)
    compiled = torch.compile(eager, dynamic=False)
    data = x.detach()

    def floor() -> None:
        data.clone(), data.sum(), data.clone()

    row = contest.hold(
        f"BiasLeakyReLU forward + backward, {shape} {memory_format}",
        {
            contest.OURS: lambda: backward(layer, x, bias, grad_y),
            "eager": lambda: backward(lambda x: eager(x, bias), x, bias, grad_y),
            "torch.compile": lambda: backward(lambda x: compiled(x, bias), x, bias, grad_y),
            "floor": floor,
        },
        tolerance=1e-5,
        rounds=200,
    )
    record(row, lambda: backward(layer, x, bias, grad_y))
