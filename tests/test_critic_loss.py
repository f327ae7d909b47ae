"""wasserstein_critic_loss: the sum of its parts, however the samples go through the critic."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from cases import assert_same_error, samples
from tolerances import EAGER_FLOAT64, largest
from torch import Tensor, nn

from wgan_kernels import gradient_penalty, wasserstein_critic_loss

DOUBLE = torch.float64
REAL, FAKE = samples((6, 5), DOUBLE, seed=1), samples((6, 5), DOUBLE, seed=2)
IMAGES, FAKE_IMAGES = samples((4, 3, 8, 8), DOUBLE, seed=1), samples((4, 3, 8, 8), DOUBLE, seed=2)
MIX = torch.tensor([0.2, 0.9, 0.5, 0.35, 0.6, 0.05], dtype=DOUBLE)


class Named(nn.Module):
    """A critic of a class of its own, with labels."""

    def __init__(self) -> None:
        super().__init__()
        self.label, self.net = nn.Embedding(3, 4), nn.Sequential(nn.Linear(9, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor, labels: Tensor) -> dict[str, Tensor]:
        return {"score": self.net(torch.cat([x, self.label(labels)], 1))}


def dense() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 9), nn.LeakyReLU(0.2), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 1))


def hooked() -> nn.Module:
    critic = dense()
    critic[1].register_forward_hook(lambda module, args, out: out * 1.5)
    return critic


def coupled() -> nn.Module:
    """Its scores depend on who else is in the batch."""
    return nn.Sequential(nn.Linear(5, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 1))


def convolutional() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 4, 2, 1), nn.GroupNorm(2, 6), nn.LeakyReLU(0.2), nn.Conv2d(6, 1, 4))


CASES: dict[str, tuple[Any, Tensor, Tensor, dict[str, Any]]] = {
    "dense": (dense, REAL, FAKE, {}),
    "dense, other settings": (dense, REAL, FAKE, {"weight": 3.0, "target": 0.3, "one_sided": True}),
    "dense, sum": (dense, REAL, FAKE, {"reduction": "sum", "weight": 0.5}),
    "hooked": (hooked, REAL, FAKE, {}),
    "coupled": (coupled, REAL, FAKE, {}),
    "labels": (Named, REAL, FAKE, {"args": (torch.tensor([0, 2, 1, 0, 2, 2]),), "output": "score"}),
    "convolutional": (convolutional, IMAGES, FAKE_IMAGES, {}),
    "by the graph": (convolutional, IMAGES, FAKE_IMAGES, {"route": "double_backward"}),
}


def parameter_gradients(loss: Tensor, critic: nn.Module) -> list[Tensor]:
    grads = torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for g, p in zip(grads, critic.parameters(), strict=True)]


@pytest.mark.filterwarnings("ignore:critic holds BatchNorm1d")
@pytest.mark.parametrize("name", CASES)
def test_sum_of_the_parts(backend: str, name: str) -> None:
    make, real, fake, settings = CASES[name]
    torch.manual_seed(1)
    critic = make().double()
    mix = MIX[: real.shape[0]]
    args, output = settings.get("args", ()), settings.get("output")

    def score(x: Tensor) -> Tensor:
        return critic(x, *args) if output is None else critic(x, *args)[output]

    loss, wasserstein, penalty, norms = wasserstein_critic_loss(
        critic, real, fake, mix=mix, **settings, return_terms=True
    )
    alone, alone_norms = gradient_penalty(critic, real, fake, mix=mix, **settings, return_norms=True)
    expected = score(fake).mean() - score(real).mean() + alone
    assert abs(loss - expected) < 1e-12 and abs(penalty - alone) < 1e-12 and largest(norms - alone_norms) < 1e-12
    assert abs(loss - (penalty - wasserstein)) == 0 and not norms.requires_grad
    for ours, theirs in zip(parameter_gradients(loss, critic), parameter_gradients(expected, critic), strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64 * max(1, largest(theirs))
    only = wasserstein_critic_loss(critic, real, fake, mix=mix, **settings)
    assert abs(only - loss) < 1e-12


def test_the_terms_have_gradients_of_their_own(backend: str) -> None:
    critic = dense().double()
    _, wasserstein, penalty, _ = wasserstein_critic_loss(critic, REAL, FAKE, mix=MIX, return_terms=True)
    ours = parameter_gradients(3 * penalty + wasserstein.square(), critic)
    alone = gradient_penalty(critic, REAL, FAKE, mix=MIX)
    difference = critic(REAL).mean() - critic(FAKE).mean()
    for a, b in zip(ours, parameter_gradients(3 * alone + difference.square(), critic), strict=True):
        assert largest(a - b) <= EAGER_FLOAT64


def test_without_grad_mode_there_is_a_value(backend: str) -> None:
    critic = dense()
    with torch.no_grad():
        value = wasserstein_critic_loss(critic, REAL.float(), FAKE.float(), mix=MIX)
    with_grad = wasserstein_critic_loss(critic, REAL.float(), FAKE.float(), mix=MIX)
    assert not value.requires_grad and abs(value - with_grad) < 1e-5 and value.dtype == torch.float32


def test_the_generator_gets_nothing(backend: str) -> None:
    fake = FAKE.clone().requires_grad_()
    wasserstein_critic_loss(dense().double(), REAL, fake, mix=MIX).backward()
    assert fake.grad is None


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"reduction": "none"}, ValueError, ["reduction", "none"]),
        ({"detach": False}, ValueError, ["detach", "False"]),
        ({"return_norms": False}, ValueError, ["return_norms", "False"]),
        ({"fake": FAKE[:3]}, ValueError, ["fake", r"\(6, 5\)", r"\(3, 5\)"]),
        ({"fake": FAKE[:3], "points": "real"}, ValueError, ["fake", r"\(6, 5\)", r"\(3, 5\)"]),
        ({"fake": None, "points": "real"}, TypeError, ["fake", "NoneType"]),
        ({"weight": "10"}, TypeError, ["weight", "str"]),
        ({"weight": torch.tensor(10.0)}, TypeError, ["weight", "Tensor"]),
        ({"weight": float("nan")}, ValueError, ["weight", "nan"]),
        ({"interval": True}, TypeError, ["interval", "bool"]),
        ({"lambda_": 10}, TypeError, ["lambda_"]),
    ],
)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the critic was called")

    for critic in (never, dense().double()):  # which one operator would serve
        call = functools.partial(wasserstein_critic_loss, **{"critic": critic, "real": REAL, "fake": FAKE, **arguments})
        assert_same_error(call, error, *words)
