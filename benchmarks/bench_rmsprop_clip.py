"""ClippedRMSprop against torch's RMSprop and a loop of clamp_."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from benchmarks import contest, roofline
from wgan_kernels.optim import ClippedRMSprop

BOUND = 0.01
LR = 5e-5


def critic(sizes: list[int]) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(0)
    params = [nn.Parameter(torch.randn(size, generator=generator) * BOUND) for size in sizes]
    for param in params:
        param.grad = torch.randn(param.shape, generator=generator) * 0.01
    return params


class Plain:
    """torch's RMSprop, then the clamps."""

    def __init__(self, params: list[nn.Parameter], foreach: bool) -> None:
        self.params, self.optimiser = params, torch.optim.RMSprop(params, lr=LR, foreach=foreach)

    def step(self) -> None:
        self.optimiser.step()
        with torch.no_grad():
            for param in self.params:
                param.clamp_(-BOUND, BOUND)


def optimisers(sizes: list[int]) -> dict[str, tuple[list[nn.Parameter], ClippedRMSprop | Plain]]:
    ours, loop, foreach = critic(sizes), critic(sizes), critic(sizes)
    return {
        contest.OURS: (ours, ClippedRMSprop(ours, lr=LR, clip=BOUND)),
        "RMSprop and clamp_": (loop, Plain(loop, False)),
        "RMSprop(foreach=True) and clamp_": (foreach, Plain(foreach, True)),
    }


def stepped(sizes: list[int]) -> dict[str, list[Tensor]]:
    """Weights after three steps."""
    weights = {}
    for name, (params, optimiser) in optimisers(sizes).items():
        for _ in range(3):
            optimiser.step()
        weights[name] = [param.detach() for param in params]
    return weights


def hold(case: str, sizes: list[int], rounds: int, bars: dict[str, float], floor: float | None = None):
    contenders = {name: optimiser for name, (_, optimiser) in optimisers(sizes).items()}
    row = contest.hold(
        case,
        {name: optimiser.step for name, optimiser in contenders.items()},
        check=lambda: stepped(sizes),
        tolerance=1e-5,
        bars=bars,
        floor=floor,
        rounds=rounds,
    )
    return row, contenders[contest.OURS].step


def bench_sixty_small_tensors(record) -> None:
    bars = {"RMSprop and clamp_": 3.0, "RMSprop(foreach=True) and clamp_": 3.0}
    record(*hold("ClippedRMSprop, 60 small tensors", [64, 256, 16] * 20, 300, bars))


def bench_ten_million_parameters(record) -> None:
    count = 10_000_000
    # Weights, gradients and averages are read; weights and averages are written.
    floor = 20 * count / roofline.copy_rate()
    bars = {"RMSprop and clamp_": 2.5, "RMSprop(foreach=True) and clamp_": 2.5, "floor": 1.2}
    record(*hold("ClippedRMSprop, 10 M parameters", [count], 15, bars, floor))


def bench_thousands_of_tensors_and_a_large_one(record) -> None:
    sizes = [100] * 1500 + [5_000_000] + [100] * 1500
    record(*hold("ClippedRMSprop, 3000 tensors of 100 and one of 5 M", sizes, 10, {}))
