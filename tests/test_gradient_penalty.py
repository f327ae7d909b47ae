"""gradient_penalty: against known answers and against the eager functions that people write."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from cases import assert_same_bits, assert_same_error, leaf, samples
from critics import CRITICS, problem
from eager import eager_penalty, full_gradients, mixed
from hypothesis import given
from hypothesis import strategies as st
from tolerances import EAGER_FLOAT64, assert_same_by_another_route, largest
from torch import Tensor, nn

from wgan_kernels import gradient_penalty, norm_penalty

DOUBLE = torch.float64


class Linear(nn.Module):
    """D(x) = <w, x>, whose gradient is w everywhere."""

    def __init__(self, *w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w, dtype=DOUBLE))

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1) @ self.w


@pytest.mark.parametrize("settings", [{}, {"weight": 3.0, "target": 0.0}, {"target": 0.2, "one_sided": True}])
@pytest.mark.parametrize(
    ("name", "channels_last"), [*((name, False) for name in CRITICS), ("conv", True), ("conv, patches", True)]
)
def test_parameter_gradients_equal_the_eager_function(
    backend: str, name: str, channels_last: bool, settings: dict[str, Any]
) -> None:
    critic, real, fake, mix = problem(name, channels_last)
    expected = eager_penalty(critic, mixed(real, fake, mix), **settings)[0]
    penalty = gradient_penalty(critic, real, fake, mix=mix, **settings)
    assert penalty.shape == () and abs(penalty.item() - expected.item()) < EAGER_FLOAT64
    grads = full_gradients(expected, critic)
    assert max(map(largest, grads)) > 0.1, "the test has nothing to compare"
    for ours, theirs in zip(full_gradients(penalty, critic), grads, strict=True):
        assert largest(ours - theirs) < EAGER_FLOAT64


@pytest.mark.parametrize("name", CRITICS)
def test_a_whole_critic_loss_in_one_backward(backend: str, name: str) -> None:
    critic, real, fake, mix = problem(name)
    losses = []
    for penalty in (eager_penalty(critic, mixed(real, fake, mix))[0], gradient_penalty(critic, real, fake, mix=mix)):
        weights = sum(param.square().sum() for param in critic.parameters())
        losses.append(critic(fake).mean() - critic(real).mean() + penalty + 0.1 * weights + penalty**2)
    expected, ours = (full_gradients(loss, critic) for loss in losses)
    for a, b in zip(ours, expected, strict=True):
        assert largest(a - b) < EAGER_FLOAT64 * max(1, largest(b))


def test_the_gradient_of_a_gradient_through_the_penalty(backend: str) -> None:
    critic, real, fake, mix = problem("mlp")
    results = []
    ours = gradient_penalty(critic, real, fake, mix=mix, route="double_backward")
    for penalty in (eager_penalty(critic, mixed(real, fake, mix))[0], ours):
        first = torch.autograd.grad(penalty, critic[0].weight, create_graph=True)[0]
        results.append(torch.autograd.grad(first.square().sum(), critic[2].weight)[0])
    assert largest(results[0]) > 0.1 and largest(results[0] - results[1]) < EAGER_FLOAT64 * largest(results[0])


@given(
    w=st.lists(st.floats(-3, 3).filter(lambda x: x == 0 or abs(x) > 1e-6), min_size=1, max_size=12),
    weight=st.floats(0, 20),
    target=st.floats(0, 3),
    batch=st.integers(1, 5),
    one_sided=st.booleans(),
)
def test_linear_critic_has_a_known_penalty(
    w: list[float], weight: float, target: float, batch: int, one_sided: bool
) -> None:
    critic = Linear(*w)
    norm = critic.w.detach().norm().item()
    excess = max(norm - target, 0.0) if one_sided else norm - target
    real, fake = torch.randn(batch, len(w), dtype=DOUBLE), torch.randn(batch, len(w), dtype=DOUBLE)
    penalty = gradient_penalty(critic, real, fake, weight=weight, target=target, one_sided=one_sided)
    assert penalty.item() == pytest.approx(weight * excess**2, rel=1e-9, abs=1e-12)
    (grad,) = torch.autograd.grad(penalty, critic.w)
    expected = 2 * weight * excess * critic.w.detach() / norm if norm else torch.zeros(len(w), dtype=DOUBLE)
    assert torch.allclose(grad, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_reductions_and_norms(backend: str, reduction: str) -> None:
    critic, real, fake = Linear(3.0, 4.0), torch.ones(6, 2, dtype=DOUBLE), torch.zeros(6, 2, dtype=DOUBLE)
    penalty, norms = gradient_penalty(critic, real, fake, weight=0.5, reduction=reduction, return_norms=True)
    expected = {"mean": 8.0, "sum": 48.0, "none": [8.0] * 6}[reduction]
    assert penalty.tolist() == expected
    assert norms.tolist() == [5.0] * 6 and not norms.requires_grad and norms.grad_fn is None


def test_defaults_are_those_of_wgan_gp(backend: str) -> None:
    critic, x = Linear(3.0, 4.0), torch.ones(2, 2, dtype=DOUBLE)
    assert gradient_penalty(critic, x, x).item() == 10 * 16.0


class Recorder(nn.Module):
    """Remembers where it was asked."""

    def forward(self, x: Tensor) -> Tensor:
        self.x = x.detach().clone()
        return x.flatten(1).square().sum(1)


def test_points_and_the_draw(backend: str) -> None:
    real, fake = samples((5, 2, 3), torch.float32, seed=1), samples((5, 2, 3), torch.float32, seed=2)
    critic = Recorder()
    gradient_penalty(critic, real, fake, points="real")
    assert_same_bits(critic.x, real)
    gradient_penalty(critic, real, fake, points="fake")
    assert_same_bits(critic.x, fake)
    gradient_penalty(critic, real, None, points="real")
    gradient_penalty(critic, None, fake, points="fake")
    assert_same_bits(critic.x, fake)
    torch.manual_seed(9)
    gradient_penalty(critic, real, fake)
    torch.manual_seed(9)
    mix = torch.rand(5)
    drawn = critic.x
    assert_same_bits(drawn, mix[:, None, None] * real + (1 - mix[:, None, None]) * fake)
    gradient_penalty(critic, real, fake, generator=torch.Generator().manual_seed(9))
    assert_same_bits(critic.x, drawn)
    for shape in ((5,), (5, 1), (5, 1, 1), (5, 1, 1, 1)):
        gradient_penalty(critic, real, fake, mix=mix.reshape(shape))
        assert_same_bits(critic.x, drawn)


@pytest.mark.parametrize("points", ["mixed", "real", "fake"])
def test_samples_are_constants_unless_asked_otherwise(backend: str, points: str) -> None:
    def inputs() -> list[Tensor]:
        return [leaf(samples((4, 3), DOUBLE, seed=seed)) for seed in (1, 2)]

    critic = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    mix = {"mix": leaf(torch.rand(4, dtype=DOUBLE))} if points == "mixed" else {}
    real, fake = inputs()
    gradient_penalty(critic, real, fake, points=points, **mix).backward()
    assert real.grad is None and fake.grad is None and all(value.grad is None for value in mix.values())
    assert all(p.grad is not None for p in critic[0].parameters())

    values = [*inputs(), *mix.values()]

    def function(*values: Tensor) -> Tensor:
        chosen = {"mix": values[2]} if points == "mixed" else {}
        return gradient_penalty(critic, *values[:2], points=points, detach=False, **chosen)

    asked = values if points == "mixed" else [values[0 if points == "real" else 1]]
    grads = torch.autograd.grad(function(*values), asked)
    assert all(largest(grad) > 1e-3 for grad in grads)

    def formula(*values: Tensor) -> Tensor:
        """Without autograd.grad: the gradient of a two-layer network in closed form."""
        weight = values[2][:, None] if points == "mixed" else float(points == "real")
        hidden = torch.tanh(critic[0](weight * values[0] + (1 - weight) * values[1]))
        grad = ((1 - hidden**2) * critic[2].weight) @ critic[0].weight
        return 10 * ((grad.norm(dim=1) - 1) ** 2).mean()

    for ours, expected in zip(grads, torch.autograd.grad(formula(*values), asked), strict=True):
        assert largest(ours - expected) < EAGER_FLOAT64


def test_the_callers_tensors_are_left_as_they_were(backend: str) -> None:
    for points, detach in itertools.product(("mixed", "real", "fake"), (True, False)):
        real, fake = samples((4, 3), torch.float32, seed=1), samples((4, 3), torch.float32, seed=2)
        critic = nn.Linear(3, 1)
        gradient_penalty(critic, real, fake, points=points, detach=detach).backward()
        for x, seed in ((real, 1), (fake, 2)):
            assert not x.requires_grad and x.grad is None and x._version == 0
            assert_same_bits(x, samples((4, 3), torch.float32, seed=seed))


@pytest.mark.parametrize("target", [0.0, 1.0, 0.5])
def test_at_zero_gradient(backend: str, target: float) -> None:
    critic = Linear(0.0, 0.0, 0.0)
    x = samples((4, 3), DOUBLE)
    (closed,) = torch.autograd.grad(gradient_penalty(critic, x, x, weight=5.0, target=target), critic.w)
    assert torch.equal(closed, torch.zeros(3, dtype=DOUBLE))
    penalty = gradient_penalty(critic, x, x, weight=5.0, target=target, route="double_backward")
    assert penalty.item() == 5 * target**2
    (first,) = torch.autograd.grad(penalty, critic.w, create_graph=True)
    assert torch.equal(first, torch.zeros(3, dtype=DOUBLE))
    u = torch.tensor([1.0, -2.0, 3.0], dtype=DOUBLE)
    (second,) = torch.autograd.grad(first, critic.w, u)
    # The gradient of each of the B samples is w: their shares of 2 * weight * u / B add up.
    assert torch.equal(second, 2 * 5.0 * u if target == 0 else torch.zeros_like(u))


class Dead(nn.Module):
    """A critic whose ReLUs are all shut for some samples, which is where NaN comes from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
        with torch.no_grad():
            self.layers[0].weight.abs_()
            self.layers[0].bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_dead_critic_gives_no_nan(backend: str, dtype: torch.dtype) -> None:
    critic = Dead().to(dtype)
    x = torch.tensor([[-1.0, -1, -1], [1, 1, 1]], dtype=dtype)
    for target in (0.0, 1.0):
        for grad in full_gradients(gradient_penalty(critic, x, x, target=target), critic):
            assert grad.isfinite().all()


class Conditional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(3, 2)

    def forward(self, x: Tensor, labels: Tensor, *, scale: float = 1.0) -> Tensor:
        return scale * (x * self.embedding(labels)).sum(1)


def test_conditional_critics(backend: str) -> None:
    critic, x, labels = Conditional(), torch.ones(4, 2), torch.tensor([0, 1, 2, 1])
    norms = critic.embedding(labels).norm(dim=1).detach()
    for given_labels in ({"args": (labels,)}, {"args": [labels]}, {"kwargs": {"labels": labels}}):
        _, ours = gradient_penalty(critic, x, x, return_norms=True, **given_labels)
        assert_same_by_another_route(ours, norms)
    penalty, ours = gradient_penalty(critic, x, x, return_norms=True, args=(labels,), kwargs={"scale": 2.0})
    assert_same_by_another_route(ours, 2 * norms)
    penalty.backward()
    assert critic.embedding.weight.grad.abs().sum(1).gt(0).all()


def test_a_batch_of_none_is_nan_as_a_mean_of_nothing(backend: str) -> None:
    critic = nn.Linear(3, 1)
    assert gradient_penalty(critic, torch.ones(0, 3), torch.ones(0, 3)).isnan()
    assert gradient_penalty(critic, torch.ones(0, 3), torch.ones(0, 3), reduction="sum").item() == 0
    call = {"real": torch.ones(0, 3), "fake": torch.ones(0, 3), "reduction": "max"}
    assert_same_error(lambda: gradient_penalty(critic, **call), ValueError, "reduction", "'max'", r"\(0, 3\)")
    # Samples without features have norms, of 0.
    assert gradient_penalty(lambda x: x.sum(1), torch.ones(2, 0), torch.ones(2, 0), reduction="max").item() == 10


def scores(x: Tensor) -> Tensor:
    return x.square().sum(1)


def test_equals_norm_penalty_of_the_gradient(backend: str) -> None:
    x = samples((4, 3), DOUBLE)
    points = leaf(x)
    (grad,) = torch.autograd.grad(scores(points).sum(), points)
    for settings in ({}, {"target": 0.0}, {"one_sided": True}, {"reduction": "sum"}, {"reduction": "none"}):
        ours = gradient_penalty(scores, x, x, points="real", weight=1.0, **settings)
        assert_same_bits(ours.detach(), norm_penalty(grad, **settings))
