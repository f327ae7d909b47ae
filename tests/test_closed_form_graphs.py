"""The closed form of critics whose values are used more than once, in place, and out of the graph's sight."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from cases import samples
from tolerances import EAGER_FLOAT64, largest
from torch import Tensor, nn
from torch.nn import functional

from wgan_kernels import explain_route, gradient_penalty

DOUBLE = torch.float64
REAL, FAKE = samples((4, 4), DOUBLE, seed=1), samples((4, 4), DOUBLE, seed=2)
IMAGES, FAKE_IMAGES = samples((4, 4, 4, 4), DOUBLE, seed=1), samples((4, 4, 4, 4), DOUBLE, seed=2)
MIX = torch.tensor([0.2, 0.9, 0.5, 0.35], dtype=DOUBLE)

OPERATIONS: dict[str, Callable[[RandomCritic, Tensor, Tensor], Tensor]] = {
    "layer": lambda critic, a, b: critic.layers[0](a),
    "other layer": lambda critic, a, b: critic.layers[1](a),
    "relu in place": lambda critic, a, b: functional.relu(a, inplace=True),
    "relu of a copy": lambda critic, a, b: functional.relu(a.clone(), inplace=True),
    "leaky_relu": lambda critic, a, b: functional.leaky_relu(a, 0.3),
    "tanh": lambda critic, a, b: a.tanh(),
    "elu": lambda critic, a, b: functional.elu(a),
    "prelu": lambda critic, a, b: critic.prelu(a),
    "layer_norm": lambda critic, a, b: critic.layer_norm(a),
    "group_norm": lambda critic, a, b: critic.group_norm(a),
    "sum": lambda critic, a, b: a + b,
    "product": lambda critic, a, b: a * b * 0.5,
    "scaled": lambda critic, a, b: a * critic.scale.view(-1, *[1] * (a.dim() - 2)),
    "constant added in place": lambda critic, a, b: a.add_(b.detach()),
    "concatenation": lambda critic, a, b: torch.cat([a, b], 1)[:, ::2],
    "less the batch's mean": lambda critic, a, b: a - a.mean(0),
    "flipped": lambda critic, a, b: a.flip(1),
}


class RandomCritic(nn.Module):
    """Operations on random earlier values."""

    def __init__(self, seed: int, image: bool) -> None:
        super().__init__()
        self.seed, self.image = seed, image
        self.layers = nn.ModuleList([nn.Conv2d(4, 4, 3, padding=1) if image else nn.Linear(4, 4) for _ in range(2)])
        self.prelu, self.group_norm = nn.PReLU(4), nn.GroupNorm(2, 4)
        self.layer_norm = nn.LayerNorm([4, 4, 4] if image else 4)
        self.scale, self.last = nn.Parameter(torch.rand(4)), nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        draw = random.Random(self.seed)
        values = [x * 1.0 if draw.random() < 0.3 else self.layers[0](x)]
        for _ in range(draw.randint(4, 12)):
            a = values[-1] if draw.random() < 0.6 else draw.choice(values)
            values.append(OPERATIONS[draw.choice(list(OPERATIONS))](self, a, draw.choice(values)))
        h = values[-1] + 0.3 * draw.choice(values)
        return self.last(h.mean((2, 3)) if self.image else h)


def gradients(
    make: Callable[[], nn.Module], real: Tensor, fake: Tensor, route: str, **settings: object
) -> list[Tensor]:
    torch.manual_seed(3)
    critic = make().double()
    penalty = gradient_penalty(critic, real, fake, route=route, **settings)
    grads = torch.autograd.grad(penalty, list(critic.parameters()), allow_unused=True)
    return [penalty.detach(), *(torch.zeros_like(p) if g is None else g for g, p in zip(grads, critic.parameters()))]


def assert_same_by_both_routes(
    make: Callable[[], nn.Module], real: Tensor, fake: Tensor, **settings: object
) -> list[Tensor]:
    ours, theirs = (gradients(make, real, fake, route, **settings) for route in ("auto", "double_backward"))
    for a, b in zip(ours, theirs, strict=True):
        assert largest(a - b) <= EAGER_FLOAT64 * max(1, largest(b))
    return theirs


@pytest.mark.parametrize("image", [False, True], ids=["rows", "images"])
def test_random_graphs(image: bool) -> None:
    real, fake = (IMAGES, FAKE_IMAGES) if image else (REAL, FAKE)
    compared = 0
    for seed in range(150):
        try:
            assert_same_by_both_routes(lambda seed=seed: RandomCritic(seed, image), real, fake, mix=MIX)
        except RuntimeError:  # something is written into that autograd itself needs
            with pytest.raises(RuntimeError):
                gradients(lambda seed=seed: RandomCritic(seed, image), real, fake, "double_backward", mix=MIX)
        else:
            compared += 1
    assert compared > 75


class Branches(nn.Module):
    """Two layers, and what is done between them."""

    def __init__(self, between: Callable[[Branches, Tensor], Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.scale = nn.Linear(4, 4), nn.Linear(4, 1), nn.Parameter(torch.rand(4))
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.between(self, self.first(x)).tanh())


def clamped_out_of_sight(critic: Branches, h: Tensor) -> Tensor:
    y = functional.leaky_relu(h, 0.2)
    with torch.no_grad():
        y.clamp_(-0.1, 0.3)
    return critic.first(y)


def reused(critic: Branches, h: Tensor) -> Tensor:
    b = h * 2
    return functional.leaky_relu(b) + b + h


def parameter_reused(critic: Branches, h: Tensor) -> Tensor:
    b = h * critic.scale
    return (functional.leaky_relu(b).tanh() + b) * critic.scale


BETWEEN: dict[str, Callable[[Branches, Tensor], Tensor]] = {
    "a value and what was made of it": reused,
    "a parameter on both paths": parameter_reused,
    "a dense block in place": lambda critic, h: h + functional.relu(h * 1.5, inplace=True),
    "written into without grad mode": clamped_out_of_sight,
    "complex numbers": lambda critic, h: torch.tanh(torch.fft.rfft(h)).abs().repeat(1, 2)[:, :4],
}


@pytest.mark.parametrize("name", BETWEEN)
def test_branches(name: str) -> None:
    assert_same_by_both_routes(lambda: Branches(BETWEEN[name]), REAL, FAKE, mix=MIX)


@pytest.mark.parametrize("activation", [nn.ELU(), nn.PReLU(3), nn.ReLU(), nn.LeakyReLU(0.2)], ids=repr)
def test_exactly_at_the_kink(activation: nn.Module) -> None:
    images = torch.zeros(3, 1, 8, 8, dtype=DOUBLE)
    images[:, :, 3:5, 3:5] = 1

    def make() -> nn.Module:
        first = nn.Conv2d(1, 3, 3, padding=1)
        nn.init.zeros_(first.bias)
        return nn.Sequential(first, activation, nn.Conv2d(3, 2, 3), nn.Tanh(), nn.Flatten(), nn.Linear(72, 1))

    assert_same_by_both_routes(make, images, images, points="real", target=0.0)


def test_a_hook_on_a_parameter_sees_its_whole_gradient() -> None:
    def make() -> nn.Module:
        critic = Branches(lambda critic, h: (h * critic.scale).tanh())
        critic.double().scale.register_hook(lambda grad: 2 * grad)
        return critic

    assert_same_by_both_routes(make, REAL, FAKE, mix=MIX)
    assert explain_route(make(), REAL).name == "double_backward"


@pytest.mark.parametrize("points", ["mixed", "real", "fake", "dragan"])
def test_samples_are_not_written_into(points: str) -> None:
    real, fake = REAL.clone(), FAKE.clone()
    critic = nn.Sequential(nn.LeakyReLU(0.2, inplace=True), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 1)).double()
    gradient_penalty(critic, real, fake, points=points, route="closed_form")
    assert torch.equal(real, REAL) and torch.equal(fake, FAKE)
