"""The gradient penalty of fully connected critics, and all that they minimise, with the gradients by the parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import wgan_kernels as wk
from benchmarks import contest

WEIGHT = 10.0


def mlp(sizes: Sequence[int]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs, outputs in zip(sizes[:-1], sizes[1:]):
        layers += [nn.Linear(inputs, outputs), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def penalise(grad: Tensor) -> Tensor:
    return WEIGHT * ((grad.norm(2, dim=1) - 1) ** 2).mean()


def eager(critic: nn.Module, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return penalise(grad)


def transformed(critic: nn.Module) -> Callable[[dict[str, Tensor], Tensor], Tensor]:
    def score(x: Tensor, params: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(critic, params, x).sum()

    return lambda params, x: penalise(torch.func.grad(score)(x, params))


def with_gradients(value: Tensor, params: Sequence[Tensor]) -> list[Tensor]:
    """The value and what it gives each parameter, which is nothing for some biases, and zeros to others."""
    grads = torch.autograd.grad(value, params, allow_unused=True)
    return [value, *[torch.zeros_like(p) if grad is None else grad for grad, p in zip(grads, params)]]


@pytest.mark.parametrize(
    ("sizes", "B", "bars"),
    [
        ((64, 256, 256, 256, 1), 64, {"eager": 3.0, "compiled": 2.0, "compiled whole": 2.0}),
        ((64, 256, 256, 256, 1), 256, {"eager": 2.4}),
        ((2, 512, 512, 512, 1), 256, {"eager": 1.9}),
    ],
    ids=str,
)
def bench_mlp_penalty(record, sizes: tuple[int, ...], B: int, bars: dict[str, float]) -> None:
    critic, x = mlp(sizes), torch.randn(B, sizes[0])
    params, named = list(critic.parameters()), dict(critic.named_parameters())
    function = transformed(critic)
    compiled = torch.compile(function, fullgraph=True)
    whole = torch.compile(torch.func.grad_and_value(function), fullgraph=True)
    constants = {name: param.detach() for name, param in named.items()}

    def run_whole() -> list[Tensor]:
        grads, value = whole(constants, x)
        return [value, *grads.values()]

    def run_ours() -> list[Tensor]:
        return with_gradients(wk.gradient_penalty(critic, x, None, points="real", weight=WEIGHT), params)

    row = contest.hold(
        f"gradient_penalty and its gradients, MLP {'-'.join(map(str, sizes))}, batch {B}",
        {
            contest.OURS: run_ours,
            "eager": lambda: with_gradients(eager(critic, x), params),
            "compiled": lambda: with_gradients(compiled(named, x), params),
            "compiled whole": run_whole,
        },
        bars=bars,
        rounds=200,
    )
    record(row, run_ours)


@pytest.mark.parametrize(("sizes", "B"), [((64, 256, 256, 256, 1), 64), ((2, 512, 512, 512, 1), 256)], ids=str)
def bench_mlp_critic_loss(record, sizes: tuple[int, ...], B: int) -> None:
    critic, (real, fake) = mlp(sizes), torch.randn(2, B, sizes[0])
    params, mix = list(critic.parameters()), torch.rand(B)
    mixed = mix[:, None] * real + (1 - mix[:, None]) * fake
    function = transformed(critic)

    def whole_loss(params: dict[str, Tensor], real: Tensor, fake: Tensor, mixed: Tensor) -> Tensor:
        of_real, of_fake = (torch.func.functional_call(critic, params, x).mean() for x in (real, fake))
        return of_fake - of_real + function(params, mixed)

    whole = torch.compile(torch.func.grad_and_value(whole_loss), fullgraph=True)
    constants = {name: param.detach() for name, param in critic.named_parameters()}

    def run_whole() -> list[Tensor]:
        grads, value = whole(constants, real, fake, mixed)
        return [value, *grads.values()]

    def run_ours() -> list[Tensor]:
        return with_gradients(wk.wasserstein_critic_loss(critic, real, fake, mix=mix, weight=WEIGHT), params)

    def run_eager() -> list[Tensor]:
        loss = critic(fake).mean() - critic(real).mean() + eager(critic, mixed)
        return with_gradients(loss, params)

    row = contest.hold(
        f"wasserstein_critic_loss and its gradients, MLP {'-'.join(map(str, sizes))}, batch {B}",
        {contest.OURS: run_ours, "eager": run_eager, "compiled whole": run_whole},
        rounds=200,
    )
    record(row, run_ours)
