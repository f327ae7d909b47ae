"""minibatch_discrimination, forward and backward, against the eager lines that people write."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import wgan_kernels as wk
from benchmarks import contest, roofline
from benchmarks.bench_closed_form import memory

# Of one number of one pair: a difference and a distance added up, forward; those again, and a sign and two sums of
# what it gives, one for each sample, backward.
OPERATIONS = 3 + 3 + 4


class Eager(nn.Module):
    """The layer as people write it: every difference of every pair at once."""

    def __init__(self, layer: wk.nn.MinibatchDiscrimination) -> None:
        super().__init__()
        self.weight = layer.weight

    def forward(self, x: Tensor) -> Tensor:
        m = (x @ self.weight.flatten(1)).view(-1, *self.weight.shape[1:])
        closeness = torch.exp(-(m[:, None] - m[None]).abs().sum(-1)).sum(1) - 1
        return torch.cat([x, closeness], 1)


def floor(B: int, F: int, K: int) -> float:
    """Seconds: each pair once, at the rate of a matrix product's multiply-adds, and its exponential twice."""
    pairs = B * (B - 1) / 2 * F
    return pairs * K * OPERATIONS / (roofline.matrix_product_rate() / 2) + 2 * pairs / roofline.exponential_rate()


def second(layer: nn.Module, x: Tensor, u: Tensor) -> tuple[Tensor, ...]:
    (first,) = torch.autograd.grad(layer(x).sum(), x, create_graph=True)
    return torch.autograd.grad((first * u).sum(), (x, layer.weight))


@pytest.mark.parametrize(
    ("size", "bars", "rounds"),
    [((64, 64, 16), {}, 100), ((256, 64, 16), {"eager": 4.0}, 60)],
    ids=lambda value: "x".join(map(str, value)) if isinstance(value, tuple) else None,
)
def bench_forward_backward(record, size: tuple[int, int, int], bars: dict[str, float], rounds: int) -> None:
    B, F, K = size
    x, layer = torch.randn(B, 128, requires_grad=True), wk.nn.MinibatchDiscrimination(128, F, K)
    eager = Eager(layer)
    compiled = torch.compile(eager)

    def gradients(of: nn.Module) -> tuple[Tensor, ...]:
        return torch.autograd.grad(of(x).square().sum(), (x, layer.weight))

    contenders = {
        contest.OURS: lambda: gradients(layer),
        "eager": lambda: gradients(eager),
        "torch.compile": lambda: gradients(compiled),
    }
    case = f"MinibatchDiscrimination forward + backward, batch {B}, {F} features of {K}"
    row = contest.hold(case, contenders, bars=bars, floor=floor(B, F, K), rounds=rounds)
    row.memory, row.memory_bar = memory(contenders[contest.OURS]) / memory(contenders["eager"]), 0.05
    record(row, contenders[contest.OURS])


def bench_second_derivative(record) -> None:
    B, F, K = 256, 64, 16
    x, u, layer = torch.randn(B, 128, requires_grad=True), torch.randn(B, 128), wk.nn.MinibatchDiscrimination(128, F, K)
    eager = Eager(layer)
    contenders = {
        contest.OURS: lambda: second(layer, x, u),
        "eager": lambda: second(eager, x, u),
    }
    case = f"MinibatchDiscrimination second derivative, batch {B}, {F} features of {K}"
    row = contest.hold(case, contenders, bars={"eager": 4.0}, tolerance=1e-3, rounds=20)
    record(row, contenders[contest.OURS])
