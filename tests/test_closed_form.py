"""The penalty without double backward against the eager one: the same numbers, for every layer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from critics import IMAGE_LAYERS, Call, closed_form
from eager import eager_penalty
from tolerances import EAGER_FLOAT64, assert_as_good_as_torch, largest
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import wrap_torch_function

from wgan_kernels.closed_form import Step, Tangent, register_rule, rules

DOUBLE = torch.float64


def outcome(
    penalty: Callable[..., tuple[Tensor, Tensor]], make: Callable[[], nn.Module], x: Tensor, **settings: Any
) -> tuple[nn.Module, Tensor, Tensor, list[Tensor | None], Tensor]:
    """A critic fresh from `make`, after the penalty: value, norms, parameter gradients, random state."""
    torch.manual_seed(5)
    critic = make().to(x.dtype)
    critic(x)  # what is lazy becomes what it is
    critic.to(memory_format=torch.preserve_format if x.is_contiguous() else torch.channels_last)
    value, norms = penalty(critic, x, **settings)
    params = [param for param in critic.parameters() if param.requires_grad]
    state = torch.get_rng_state()
    return critic, value.detach(), norms, list(torch.autograd.grad(value, params, allow_unused=True)), state


def assert_same(make: Callable[[], nn.Module], x: Tensor, **settings: Any) -> None:
    expected_critic, expected, expected_norms, expected_grads, expected_state = outcome(
        eager_penalty, make, x, **settings
    )
    critic, value, norms, grads, state = outcome(closed_form, make, x, **settings)
    assert abs(value - expected) < EAGER_FLOAT64 and largest(norms - expected_norms) < EAGER_FLOAT64
    assert [grad is None for grad in grads] == [grad is None for grad in expected_grads]
    pairs = [(a, b) for a, b in zip(grads, expected_grads) if a is not None]
    assert max(largest(b) for _, b in pairs) > 1e-2, "the test has nothing to compare"
    for ours, theirs in pairs:
        assert ours.shape == theirs.shape and ours.dtype == theirs.dtype
        assert largest(ours - theirs) < EAGER_FLOAT64
    for ours, theirs in zip(critic.buffers(), expected_critic.buffers(), strict=True):
        assert torch.equal(ours, theirs)
    assert torch.equal(state, expected_state), "other random numbers were drawn"


def image_critic(name: str, curved: bool) -> nn.Module:
    end = [nn.Softplus(), nn.LazyConv2d(3, 2)] if curved else [nn.LazyConv2d(3, 2)]
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), *IMAGE_LAYERS[name](), *end, nn.Flatten(), nn.LazyLinear(1))


# With a curved layer at the end, every layer also takes part in the sweep that curvature starts.
@pytest.mark.parametrize("curved", [False, True])
@pytest.mark.parametrize("name", IMAGE_LAYERS)
def test_layers_on_images(name: str, curved: bool) -> None:
    assert_same(lambda: image_critic(name, curved), torch.randn(4, 3, 8, 8, dtype=DOUBLE))


@pytest.mark.parametrize("name", ["none", "strided", "grouped, dilated", "transposed", "LeakyReLU", "GroupNorm"])
def test_channels_last(name: str) -> None:
    x = torch.randn(4, 3, 8, 8, dtype=DOUBLE).contiguous(memory_format=torch.channels_last)
    assert_same(lambda: image_critic(name, True), x)


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        (lambda: [nn.Linear(5, 7), nn.LeakyReLU(0.2), nn.Linear(7, 6, bias=False), nn.ReLU(True)], (9, 5)),
        (lambda: [nn.Linear(5, 7), nn.LayerNorm(7), nn.ReLU(), nn.Linear(7, 6), nn.LayerNorm(6), nn.Tanh()], (9, 5)),
        (lambda: [nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 6), nn.SiLU()], (4, 3, 5)),
        (lambda: [nn.Conv1d(2, 4, 3), nn.ReLU(), nn.ConvTranspose1d(4, 4, 3, 2), nn.InstanceNorm1d(4)], (4, 2, 9)),
        (lambda: [nn.Conv3d(2, 4, 3, 1, 1), nn.ReLU(), nn.ConvTranspose3d(4, 2, 2, 2), nn.Tanh()], (4, 2, 3, 4, 3)),
        (lambda: [nn.GRU(3, 5, batch_first=True), Call(lambda x: x[0])], (4, 6, 3)),
    ],
    ids=["fully connected", "layer norms", "linear over sequences", "1d", "3d", "recurrent"],
)
def test_layers_on_other_shapes(layers: Callable[[], list[nn.Module]], shape: tuple[int, ...]) -> None:
    def make() -> nn.Module:
        return nn.Sequential(*layers(), nn.Flatten(), nn.LazyLinear(1))

    assert_same(make, torch.randn(shape, dtype=DOUBLE))


LABELS = torch.tensor([0, 2, 1, 2, 2, 0])


@pytest.mark.parametrize(
    "condition",
    [
        lambda x, body, embedding: body(torch.cat([x, embedding(LABELS)], 1)),
        lambda x, body, embedding: body(torch.cat([x, functional.one_hot(LABELS, 5)], 1)),
        lambda x, body, embedding: body(torch.cat([x, x], 1)) * embedding(LABELS).sum(1, keepdim=True),
        lambda x, body, embedding: (x * embedding(LABELS)).sum(1, keepdim=True) + body(torch.cat([x, x], 1)),
    ],
    ids=["embedding", "labels", "product", "projection"],
)
def test_conditional_critics(condition: Callable[..., Tensor]) -> None:
    def make() -> nn.Module:
        body = nn.Sequential(nn.Linear(10, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
        return Call(condition, body, nn.Embedding(3, 5))

    assert_same(make, torch.randn(6, 5, dtype=DOUBLE))


@pytest.mark.parametrize("settings", [{"target": 0.0}, {"one_sided": True, "target": 0.1}])
@pytest.mark.parametrize("name", ["LeakyReLU", "LayerNorm"])
def test_settings_of_the_penalty(name: str, settings: dict[str, Any]) -> None:
    assert_same(lambda: image_critic(name, False), torch.randn(4, 3, 8, 8, dtype=DOUBLE), **settings)


@pytest.mark.parametrize("frozen", [[0], [3], [0, 1, 3]])
def test_frozen_layers(frozen: list[int]) -> None:
    def make() -> nn.Module:
        layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3), nn.Tanh()]
        for at in frozen:
            layers[at].requires_grad_(False)
        return nn.Sequential(*layers, nn.Flatten(), nn.LazyLinear(1))

    assert_same(make, torch.randn(4, 3, 8, 8, dtype=DOUBLE))


def test_a_layer_without_a_derivative() -> None:
    def make() -> nn.Module:
        return Call(
            lambda x, f, g: g(torch.cat([f(x).sign(), f(x), f(x).floor()], 1)), nn.Linear(5, 4), nn.Linear(12, 1)
        )

    assert_same(make, torch.randn(4, 5, dtype=DOUBLE))
    assert_same(
        lambda: Call(lambda x, f, g, h: h(g(f(x).sign())) + h(x), nn.Linear(5, 4), nn.Linear(4, 5), nn.Linear(5, 1)),
        torch.randn(4, 5, dtype=DOUBLE),
    )


def test_maps_of_scores_and_critics_that_share_nothing() -> None:
    def patches() -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 1, 3))

    assert_same(patches, torch.randn(4, 3, 8, 8, dtype=DOUBLE))
    assert_same(lambda: nn.Linear(5, 1), torch.randn(4, 5, dtype=DOUBLE))
    assert_same(
        lambda: Call(lambda x, f, g: f(x) + g(x).square(), nn.Linear(5, 1), nn.Linear(5, 1)),
        torch.randn(4, 5, dtype=DOUBLE),
    )


@pytest.mark.parametrize("name", ["LeakyReLU", "residual in place", "LayerNorm", "GroupNorm", "PReLU", "GELU"])
def test_float32_is_as_good_as_torch(name: str) -> None:
    x = torch.randn(4, 3, 8, 8)
    _, exact, exact_norms, exact_grads, _ = outcome(eager_penalty, lambda: image_critic(name, True), x.double())
    _, plain, plain_norms, plain_grads, _ = outcome(eager_penalty, lambda: image_critic(name, True), x)
    _, value, norms, grads, _ = outcome(closed_form, lambda: image_critic(name, True), x)
    assert_as_good_as_torch(value, plain, exact, "value")
    assert_as_good_as_torch(norms.float(), plain_norms, exact_norms, "norms")
    for ours, theirs, best in zip(grads, plain_grads, exact_grads):
        if ours is not None:
            assert_as_good_as_torch(ours, theirs, best, "gradient", terms=largest(best))


@wrap_torch_function(lambda x, weight: (x, weight))
def scaled_cube(x: Tensor, weight: Tensor) -> Tensor:
    return weight * x**3


class ScaledCube(Step):
    made = 0

    def __init__(self, x: Tensor, out: Tensor, weight: Tensor) -> None:
        self.x, self.weight, self.w = x, weight, weight.detach()
        ScaledCube.made += 1

    def params(self) -> list[Tensor]:
        return [self.weight]

    def adjoint(self, delta: Tensor) -> tuple[Tensor]:
        self.delta = delta
        return (3 * self.w * self.x**2 * delta,)

    def tangent(self, tangents: list[Tensor], needs_out: bool) -> Tangent:
        u = 3 * self.x**2 * tangents[0]
        grads = [(self.weight, (self.delta * u).sum(0))]
        return Tangent(self.w * u, grads, (6 * self.w * self.x * self.delta * tangents[0],))

    def pull(self, lam: Tensor, needs_sources: bool) -> tuple[tuple[Tensor], list[tuple[Tensor, Tensor]]]:
        return (3 * self.w * self.x**2 * lam,), [(self.weight, (lam * self.x**3).sum(0))]


@pytest.mark.parametrize("curved", [False, True])
def test_a_rule_of_the_users_own(curved: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wgan_kernels.closed_form.rules.RULES", dict(rules.RULES))
    monkeypatch.setattr("wgan_kernels.closed_form.recorder.RULES", rules.RULES)

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.rand(7))

        def forward(self, x: Tensor) -> Tensor:
            return scaled_cube(x, self.weight)

    def make() -> nn.Module:
        end = [nn.Tanh(), nn.Linear(7, 7)] if curved else []
        return nn.Sequential(
            nn.Linear(5, 7), nn.ReLU(), nn.Linear(7, 7), Layer(), nn.Linear(7, 7), *end, nn.Linear(7, 1)
        )

    before = ScaledCube.made
    assert_same(make, torch.randn(6, 5, dtype=DOUBLE))
    assert ScaledCube.made == before
    register_rule(scaled_cube, ScaledCube)
    assert_same(make, torch.randn(6, 5, dtype=DOUBLE))
    assert ScaledCube.made == before + 1
