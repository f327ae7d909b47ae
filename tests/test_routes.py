"""Every penalty of gradient_penalty by each of its routes, against the function written by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_same_error, samples
from critics import convolutional, dense
from eager import full_gradients, gradient_of, mixed
from tolerances import EAGER_FLOAT64, largest
from torch import Tensor, nn

from wgan_kernels import gradient_penalty

DOUBLE = torch.float64
ROUTES = ("auto", "closed_form", "functional", "double_backward")
IMAGES, ROWS = samples((6, 3, 8, 8), DOUBLE, seed=1), samples((6, 6), DOUBLE, seed=2)
MIX = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.25, 0.55], dtype=DOUBLE)


def two_sided(norms: Tensor) -> Tensor:
    return 10 * (norms - 1) ** 2


class Groups(nn.Module):
    """A critic that judges two samples together, as PacGAN's do."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = dense()[1:]
        self.first = nn.Linear(12, 9).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(self.first(x.reshape(-1, 12)))


# The penalty as it is written by hand, from the points and the critic.
CASES: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, Any], Callable[[nn.Module, Tensor], Tensor]]] = {
    "plain": (dense, ROWS, {}, lambda critic, x: two_sided(gradient_of(critic, x).norm(dim=1)).mean()),
    "maps of scores": (
        convolutional,
        IMAGES,
        {"weight": 3.0, "target": 0.2},
        lambda critic, x: 3 * ((gradient_of(critic, x).flatten(1).norm(dim=1) - 0.2) ** 2).mean(),
    ),
    "one-sided sum": (
        dense,
        ROWS,
        {"one_sided": True, "reduction": "sum", "target": 0.05},
        lambda critic, x: 10 * ((gradient_of(critic, x).norm(dim=1) - 0.05).clamp(min=0) ** 2).sum(),
    ),
    "max": (
        dense,
        ROWS,
        {"reduction": "max"},
        lambda critic, x: two_sided(gradient_of(critic, x).norm(dim=1)).max(),
    ),
    "sample weights": (
        dense,
        ROWS,
        {"sample_weight": torch.arange(6.0)},
        lambda critic, x: (torch.arange(6.0) * two_sided(gradient_of(critic, x).norm(dim=1))).mean(),
    ),
    "norms of pixels": (
        convolutional,
        IMAGES,
        {"norm_dims": 1, "target": 0.1},
        lambda critic, x: 10 * ((gradient_of(critic, x).norm(dim=1) - 0.1) ** 2).mean(),
    ),
    "norms of rows, weighted": (
        convolutional,
        IMAGES,
        {"norm_dims": (1, -1), "sample_weight": torch.arange(6.0), "reduction": "sum"},
        lambda critic, x: (
            torch.arange(6.0)[:, None] * two_sided(gradient_of(critic, x).permute(0, 2, 1, 3).flatten(2).norm(dim=2))
        ).sum(),
    ),
    "groups": (
        Groups,
        ROWS,
        {"pac": 2, "mix": MIX[:3]},
        lambda critic, x: two_sided(
            gradient_of(critic, mixed(ROWS, -ROWS, MIX[:3].repeat_interleave(2))).reshape(3, 12).norm(dim=1)
        ).mean(),
    ),
    "dragan": (
        dense,
        ROWS,
        {"points": "dragan", "noise": 2 * ROWS.flip(0)},
        lambda critic, x: two_sided(gradient_of(critic, mixed(ROWS, ROWS + 2 * ROWS.flip(0), MIX)).norm(dim=1)).mean(),
    ),
    "R1": (
        convolutional,
        IMAGES,
        {"points": "real", "target": 0.0, "weight": 5.0, "mix": None},
        lambda critic, x: 5 * gradient_of(critic, IMAGES).flatten(1).square().sum(1).mean(),
    ),
    "every fourth step": (
        dense,
        ROWS,
        {"interval": 4, "step": 8},
        lambda critic, x: 4 * two_sided(gradient_of(critic, x).norm(dim=1)).mean(),
    ),
}


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", CASES)
def test_one_answer_by_every_route(backend: str, name: str, route: str) -> None:
    make, real, settings, by_hand = CASES[name]
    critic, fake = make(), -real
    expected = by_hand(critic, mixed(real, fake, MIX))
    penalty = gradient_penalty(critic, real, fake, **{"mix": MIX, **settings}, route=route)
    assert abs(penalty - expected) <= 1e-12 * abs(expected) and expected > 1e-3
    for ours, theirs in zip(full_gradients(penalty, critic), full_gradients(expected, critic), strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64 * max(1, largest(theirs))


def test_dragan_draws_noise_and_then_mixes() -> None:
    critic = dense()
    generator = torch.Generator().manual_seed(9)
    ours = gradient_penalty(critic, ROWS, None, points="dragan", generator=generator)
    generator.manual_seed(9)
    mix = torch.rand(6, dtype=DOUBLE, generator=generator)
    noise = 0.5 * ROWS.std() * torch.rand(6, 6, dtype=DOUBLE, generator=generator)
    expected = two_sided(gradient_of(critic, mixed(ROWS, ROWS + noise, mix)).norm(dim=1)).mean()
    assert abs(ours - expected) < 1e-12


def test_a_step_without_a_penalty() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the critic was called")

    penalty, norms = gradient_penalty(never, ROWS.float(), -ROWS, interval=4, step=6, return_norms=True)
    penalty.backward()
    assert penalty.item() == 0 and norms.shape == (0,) and penalty.dtype == torch.float32


def test_backward_of_a_step_without_a_penalty_when_compiled() -> None:
    critic = dense()

    def penalty(step: int) -> Tensor:
        return gradient_penalty(critic, ROWS, -ROWS, mix=MIX, interval=4, step=step)

    compiled = torch.compile(penalty, backend="aot_eager", fullgraph=True)
    for step in (1, 4, 6):
        value = compiled(step)
        value.backward()
        assert (value.item() == 0) == (step != 4) == (critic[0].weight.grad is None)
        critic.zero_grad()
    with torch.no_grad():
        assert compiled(1).item() == 0
    assert torch.func.grad(lambda x: (x * gradient_penalty(critic, x, x, interval=4, step=1)).sum())(ROWS).eq(0).all()


@pytest.mark.parametrize("compiled", [False, True])
def test_a_critic_that_ignores_its_input_by_every_route(compiled: bool) -> None:
    weight = torch.ones(6, dtype=DOUBLE, requires_grad=True)

    def penalty(route: str) -> Tensor:
        return gradient_penalty(lambda x: torch.ones_like(x) @ weight, ROWS, -ROWS, route=route)

    if compiled:
        with pytest.raises(torch._dynamo.exc.Unsupported, match="output that depends on its input"):
            torch.compile(penalty, backend="aot_eager", fullgraph=True)("auto")
    else:
        for route in ROUTES:
            assert_same_error(lambda route=route: penalty(route), ValueError, "critic", "depends on its input")


PARTLY_TRAINED: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "last bias": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)), ["2.bias"]),
    "last bias, rectified": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), ["2.bias"]),
    "first bias": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)), ["0.bias"]),
    "first bias, rectified": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), ["0.bias"]),
    "nothing": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.Linear(5, 1)), []),
    "nothing, rectified": (lambda: nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1)), []),
}


@pytest.mark.parametrize("name", PARTLY_TRAINED)
def test_backward_of_a_critic_that_is_trained_in_part(name: str) -> None:
    make, trained = PARTLY_TRAINED[name]
    found = []
    for route in ROUTES:
        torch.manual_seed(8)
        critic = make().double()
        for each, param in critic.named_parameters():
            param.requires_grad_(each in trained)
        gradient_penalty(critic, ROWS, -ROWS, mix=MIX, route=route).backward()
        found.append([None if param.grad is None else param.grad for param in critic.parameters()])
    for grads in found[:-1]:
        for ours, theirs in zip(grads, found[-1], strict=True):
            assert (ours is None) == (theirs is None) and (ours is None or largest(ours - theirs) <= EAGER_FLOAT64)
