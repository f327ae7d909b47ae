"""The gradient penalty and the critic's loss on a GPU: each route as on the CPU, and a whole step as one CUDA graph."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from cases import samples
from tolerances import EAGER_FLOAT64, assert_same_by_another_route, largest
from torch import Tensor, nn

import wgan_kernels as wk


def mlp() -> nn.Module:
    layers = (nn.Linear(12, 40), nn.LeakyReLU(0.2), nn.Linear(40, 33), nn.ReLU(), nn.Linear(33, 1))
    return nn.Sequential(nn.Flatten(), *layers)


def convolutional() -> nn.Module:
    return nn.Sequential(*(nn.Conv2d(3, 8, 3, 1, 1), nn.LeakyReLU(0.2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 1)))


def normalised() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 16), nn.LayerNorm(16), nn.Tanh(), nn.Linear(16, 1))


CRITICS: dict[str, Callable[[], nn.Module]] = {"mlp": mlp, "convolutional": convolutional, "normalised": normalised}
each_critic = pytest.mark.parametrize("name", CRITICS)


def made(name: str, dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    return CRITICS[name]().to(dtype)


def batch(seed: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """real, fake, mix"""
    images = [samples((9, 3, 2, 2), dtype, seed=seed + k) for k in (0, 1)]
    return *images, samples((9,), dtype, seed=seed + 2).sigmoid()


@pytest.mark.parametrize("route", ["auto", "closed_form", "functional", "double_backward"])
@each_critic
def test_every_route_as_on_the_cpu(back_end: str, name: str, route: str) -> None:
    results = []
    for device, chosen in (("cpu", "double_backward"), ("cuda", route)):
        critic = made(name, torch.float64).to(device)
        real, fake, mix = (x.to(device) for x in batch(5, torch.float64))
        with wk.use_backend("reference" if device == "cpu" else back_end):
            loss = wk.wasserstein_critic_loss(critic, real, fake, mix=mix, route=chosen)
            loss.backward()
        results.append([loss.detach().cpu(), *[param.grad.cpu() for param in critic.parameters()]])
    for ours, theirs in zip(*results, strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64 * max(1, largest(theirs))


@each_critic
def test_a_whole_step_as_one_graph(back_end: str, name: str) -> None:
    """Loss, penalty, backward and optimiser step, captured once and replayed on other batches."""
    critics = [made(name, torch.float32).cuda() for _ in range(2)]
    optimizers = [torch.optim.Adam(critic.parameters(), 1e-3, betas=(0.0, 0.9), capturable=True) for critic in critics]
    static = [x.cuda() for x in batch(0, torch.float32)]

    def step(which: int, real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
        optimizers[which].zero_grad()
        loss = wk.wasserstein_critic_loss(critics[which], real, fake, mix=mix)
        loss.backward()
        optimizers[which].step()
        return loss.detach()

    start = copy.deepcopy(critics[0].state_dict())
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step(0, *static)
    torch.cuda.current_stream().wait_stream(stream)
    optimizers[0].zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = step(0, *static)
    with torch.no_grad():  # back to where the other one starts, in the memory that the graph knows
        for param, value in zip(critics[0].parameters(), start.values()):
            param.copy_(value)
        for state in optimizers[0].state.values():
            for each in state.values():
                each.zero_()
    for seed in (10, 20, 30):
        for x, y in zip(static, batch(seed, torch.float32)):
            x.copy_(y)
        graph.replay()
        eager = step(1, *[x.clone() for x in static])
        assert_same_by_another_route(captured.cpu(), eager.cpu(), f"{name}, batch {seed}")
    for a, b in zip(*[critic.parameters() for critic in critics], strict=True):
        assert_same_by_another_route(a.detach().cpu(), b.detach().cpu(), name)
