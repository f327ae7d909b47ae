"""The penalty and the critic's gradients without double backward, against the eager function that people write."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

import wgan_kernels as wk
from benchmarks import contest


def dcgan(channels: int, inputs: int, size: int, norm: Callable[[int, int], nn.Module] | None = None) -> nn.Module:
    """4x4 convolutions of stride 2 down to 4x4, then one to a score."""
    layers: list[nn.Module] = []
    while size > 4:
        size //= 2
        layers.append(nn.Conv2d(inputs, channels, 4, 2, 1))
        if norm and len(layers) > 2:
            layers.append(norm(channels, size))
        layers.append(nn.LeakyReLU(0.2))
        inputs, channels = channels, 2 * channels
    return nn.Sequential(*layers, nn.Conv2d(inputs, 1, 4), nn.Flatten())


def layer_norm(channels: int, size: int) -> nn.Module:
    return nn.LayerNorm([channels, size, size])


def group_norm(channels: int, size: int) -> nn.Module:
    return nn.GroupNorm(1, channels)


def eager(critic: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    scores = critic(x)
    (grad,) = torch.autograd.grad(scores, x, torch.ones_like(scores), create_graph=True)
    return 10 * ((grad.flatten(1).norm(2, dim=1) - 1) ** 2).mean()


def closed_form(critic: nn.Module, x: Tensor) -> Tensor:
    return wk.gradient_penalty(critic, x, None, points="real", route="closed_form")


CASES = {
    "DCGAN 32, 1x32x32": (lambda: dcgan(32, 1, 32), (64, 1, 32, 32), 1.4, 0.65),
    "DCGAN 64, 3x32x32": (lambda: dcgan(64, 3, 32), (64, 3, 32, 32), 1.4, 0.65),
    "DCGAN 64, 3x64x64": (lambda: dcgan(64, 3, 64), (64, 3, 64, 64), 1.4, 0.65),
    "DCGAN 64, 3x32x32, LayerNorm": (lambda: dcgan(64, 3, 32, layer_norm), (64, 3, 32, 32), 1.0, 0.8),
    "DCGAN 64, 3x32x32, GroupNorm": (lambda: dcgan(64, 3, 32, group_norm), (64, 3, 32, 32), 1.0, 0.8),
}


def memory(call: Callable[[], object]) -> int:
    """The most bytes of tensors at one time."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        call()
    events = [event for event in trace.profiler.kineto_results.events() if event.name() == "[memory]"]
    total = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        total += event.nbytes()
        most = max(most, total)
    return most


@pytest.mark.parametrize("case", CASES)
def bench_penalty_and_gradients(record, case: str) -> None:
    make, shape, speed, share = CASES[case]
    critic, x = make(), torch.randn(shape)
    params = list(critic.parameters())

    def step(penalty: Callable[[nn.Module, Tensor], Tensor]) -> Callable[[], list[Tensor]]:
        def call() -> list[Tensor]:
            value = penalty(critic, x)
            grads = torch.autograd.grad(value, params, allow_unused=True)
            return [value, *(torch.zeros_like(p) if g is None else g for p, g in zip(params, grads))]

        return call

    calls = {contest.OURS: step(closed_form), "eager": step(eager)}
    most = {name: memory(call) for name, call in calls.items()}
    # A sample near a kink may fall on its other side: some 1e-4 of a gradient.
    row = contest.hold(f"{case}, batch {shape[0]}", calls, bars={"eager": speed}, tolerance=1e-3, rounds=10)
    row.memory, row.memory_bar = most[contest.OURS] / most["eager"], share
    record(row, calls[contest.OURS])
