"""The routes of gradient_penalty: one answer by each of them, the choice among them, and where people train."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_same_bits, assert_same_error, samples
from critics import Attending, OwnAttention
from tolerances import largest
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm

from wgan_kernels import explain_route, gradient_penalty

DOUBLE = torch.float64
ROUTES = ("auto", "closed_form", "functional", "double_backward")


def convolutional() -> nn.Module:
    torch.manual_seed(5)
    layers = [nn.Conv2d(3, 6, 3, 2, 1), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, 1, 1), nn.GroupNorm(2, 6), nn.Tanh()]
    return nn.Sequential(*layers, nn.Conv2d(6, 1, 1)).double()


def dense() -> nn.Module:
    torch.manual_seed(6)
    return nn.Sequential(nn.Linear(6, 9), nn.LeakyReLU(0.1), nn.Linear(9, 8), nn.ReLU(), nn.Linear(8, 1)).double()


IMAGES, ROWS = samples((6, 3, 8, 8), DOUBLE, seed=1), samples((6, 6), DOUBLE, seed=2)
MIX = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.25, 0.55], dtype=DOUBLE)


def gradient_of(critic: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    return torch.autograd.grad(critic(x).sum(), x, create_graph=True)[0]


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


def mixed(a: Tensor, b: Tensor, mix: Tensor = MIX) -> Tensor:
    mix = mix.reshape(-1, *[1] * (a.dim() - 1))
    return mix * a + (1 - mix) * b


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
        lambda critic, x: two_sided(gradient_of(critic, mixed(ROWS, ROWS + 2 * ROWS.flip(0))).norm(dim=1)).mean(),
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


def parameter_gradients(loss: Tensor, critic: nn.Module) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(critic.parameters()), allow_unused=True))


@pytest.mark.parametrize("route", ROUTES)
@pytest.mark.parametrize("name", CASES)
def test_one_answer_by_every_route(backend: str, name: str, route: str) -> None:
    make, real, settings, by_hand = CASES[name]
    critic, fake = make(), -real
    expected = by_hand(critic, mixed(real, fake))
    penalty = gradient_penalty(critic, real, fake, **{"mix": MIX, **settings}, route=route)
    assert abs(penalty - expected) <= 1e-12 * abs(expected) and expected > 1e-3
    for ours, theirs in zip(parameter_gradients(penalty, critic), parameter_gradients(expected, critic), strict=True):
        theirs = torch.zeros(()) if theirs is None else theirs
        assert largest((torch.zeros(()) if ours is None else ours) - theirs) <= 1e-10 * max(1, largest(theirs))


def test_what_each_call_takes() -> None:
    critic, x = dense(), ROWS
    assert explain_route(critic, x).name == "closed_form"
    hooked = nn.Sequential(dense(), nn.Identity())
    hooked[0].register_forward_hook(lambda module, args, out: out.register_hook(lambda grad: 2 * grad) and None)
    route = explain_route(hooked, x)
    assert route.name == "double_backward" and "register_hook" in route.reason
    with torch.no_grad():
        assert "grad mode is off" in explain_route(critic, x).reason
    names = []
    torch.func.vmap(lambda row: names.append(explain_route(critic, row).name) or row)(x.reshape(2, 3, 6))
    assert names == ["functional"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reduction": "none"}, ["closed_form", "reduction='none'"]),
        ({"detach": False}, ["closed_form", "detach=False"]),
        ({"route": "fastest"}, ["route", "'closed_form', 'functional', 'double_backward'", "'fastest'"]),
    ],
)
def test_a_route_that_the_call_does_not_allow(settings: dict[str, Any], words: list[str]) -> None:
    call = {"route": "closed_form", **settings}
    assert_same_error(lambda: gradient_penalty(dense(), ROWS, -ROWS, **call), ValueError, *words)


@pytest.mark.parametrize("make", [Attending, OwnAttention])
def test_attention(make: type[Attending]) -> None:
    torch.manual_seed(7)
    critic = make().double()
    ours = gradient_penalty(critic, ROWS, -ROWS, mix=MIX)
    with sdpa_kernel(SDPBackend.MATH):
        expected = two_sided(gradient_of(critic, mixed(ROWS, -ROWS)).norm(dim=1)).mean()
        theirs = parameter_gradients(expected, critic)
    for a, b in zip(parameter_gradients(ours, critic), theirs, strict=True):
        assert (a is None) == (b is None) and (a is None or largest(a - b) < 1e-10)


class Noisy(nn.Module):
    """Draws random numbers, moves a buffer, and, where `hook`, needs its graph as it is."""

    def __init__(self, hook: bool) -> None:
        super().__init__()
        self.first, self.last, self.hook = spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 1), hook
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(torch.tanh(self.first(x)), 0.5)
        if self.hook:
            h.register_hook(lambda grad: None)
        return self.last(h)


def noisy(hook: bool) -> nn.Module:
    torch.manual_seed(2)
    return Noisy(hook).double()


@pytest.mark.parametrize("hook", [False, True])
def test_a_fallback_leaves_no_trace(hook: bool) -> None:
    """Same dropout, same power iteration, same random numbers afterwards as with the critic run once."""
    results = []
    for route in ("auto", "double_backward"):
        critic = noisy(hook)
        penalty = gradient_penalty(critic, ROWS, -ROWS, mix=MIX, route=route)
        grads = parameter_gradients(penalty, critic)
        results.append([penalty.detach(), torch.rand(3), *critic.buffers(), *[g for g in grads if g is not None]])
    for ours, theirs in zip(*results, strict=True):
        assert largest(ours - theirs) <= 1e-12
    assert_same_error(
        lambda: gradient_penalty(noisy(True), ROWS, -ROWS, route="closed_form"), ValueError, "closed_form", "hook"
    )


def test_a_reducer_that_looks_through_the_graph_is_given_all_of_it() -> None:
    class Wrapped(DistributedDataParallel):
        def __init__(self, module: nn.Module, find_unused_parameters: bool) -> None:
            nn.Module.__init__(self)
            self.module, self.find_unused_parameters = module, find_unused_parameters

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    assert explain_route(Wrapped(dense(), False), ROWS).name == "closed_form"
    route = explain_route(Wrapped(dense(), True), ROWS)
    assert route.name == "double_backward" and "unused parameters" in route.reason


def test_a_critic_that_needs_its_graph_is_run_twice_only_once() -> None:
    critic, calls = noisy(hook=True), []
    critic.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(3):
        gradient_penalty(critic, ROWS, -ROWS)
    assert len(calls) == 4 and explain_route(critic, ROWS).name == "double_backward"


def test_explain_route_is_not_noticed() -> None:
    critic, state = noisy(hook=False), torch.get_rng_state()
    before = [buffer.clone() for buffer in critic.buffers()]
    assert explain_route(critic, ROWS).name == "closed_form"
    assert torch.equal(state, torch.get_rng_state())
    for buffer, value in zip(critic.buffers(), before, strict=True):
        assert_same_bits(buffer, value)


def test_a_step_without_a_penalty() -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the critic was called")

    penalty, norms = gradient_penalty(never, ROWS.float(), -ROWS, interval=4, step=6, return_norms=True)
    penalty.backward()
    assert penalty.item() == 0 and norms.shape == (0,) and penalty.dtype == torch.float32


def test_dragan_draws_noise_and_then_mixes() -> None:
    critic = dense()
    generator = torch.Generator().manual_seed(9)
    ours = gradient_penalty(critic, ROWS, None, points="dragan", generator=generator)
    generator.manual_seed(9)
    mix = torch.rand(6, dtype=DOUBLE, generator=generator)
    noise = 0.5 * ROWS.std() * torch.rand(6, 6, dtype=DOUBLE, generator=generator)
    expected = two_sided(gradient_of(critic, mixed(ROWS, ROWS + noise, mix)).norm(dim=1)).mean()
    assert abs(ours - expected) < 1e-12


BAD: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"points": "real", "noise": ROWS}, ValueError, ["noise", "'real'"]),
    ({"points": "dragan", "noise": ROWS[:3]}, ValueError, ["noise", r"\(6, 6\)", r"\(3, 6\)"]),
    ({"points": "dragan", "noise": 0.1}, TypeError, ["noise", "float"]),
    ({"points": "dragan", "mix": MIX[:4]}, ValueError, ["mix", r"\(6,\)", r"\(4,\)"]),
    ({"pac": 4}, ValueError, ["pac=4", "multiple", "6"]),
    ({"pac": 0}, ValueError, ["pac", "at least 1"]),
    ({"pac": 2.0}, TypeError, ["pac", "float"]),
    ({"pac": 2, "norm_dims": 1}, ValueError, ["norm_dims", "pac=2"]),
    ({"norm_dims": 0}, ValueError, ["norm_dims", "other than the first", "0"]),
    ({"norm_dims": (1, -1)}, ValueError, ["norm_dims", "once"]),
    ({"norm_dims": ()}, ValueError, ["norm_dims"]),
    ({"norm_dims": 2}, ValueError, ["norm_dims", r"\(6, 6\)"]),
    ({"sample_weight": torch.ones(5)}, ValueError, ["sample_weight", r"\(6,\)", r"\(5,\)"]),
    ({"sample_weight": torch.ones(6), "pac": 2}, ValueError, ["sample_weight", r"\(3,\)"]),
    ({"sample_weight": 2.0}, TypeError, ["sample_weight", "float"]),
    ({"sample_weight": torch.ones(6, device="meta")}, ValueError, ["sample_weight", "device", "meta"]),
    ({"interval": 0}, ValueError, ["interval", "at least 1"]),
    ({"interval": 16}, ValueError, ["step", "interval=16"]),
    ({"interval": 16, "step": 1.5}, TypeError, ["step", "float"]),
    ({"scaler": 65536.0}, TypeError, ["scaler", "GradScaler", "float"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the critic was called")

    state = torch.get_rng_state()
    assert_same_error(lambda: gradient_penalty(never, ROWS, -ROWS, **arguments), error, *words)
    assert torch.equal(state, torch.get_rng_state())
