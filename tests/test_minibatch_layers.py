"""Layers that tell a critic how alike the samples of a batch are."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_error, leaf, samples
from tolerances import assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

import wgan_kernels as wk
from wgan_kernels.nn import MinibatchDiscrimination, MinibatchStdDev


def appended(x: Tensor, weight: Tensor) -> Tensor:
    """As people write it, with the j = i that they leave out taken away."""
    m = torch.einsum("ba,afk->bfk", x, weight)
    closeness = torch.exp(-(m[:, None] - m[None]).abs().sum(-1)).sum(1) - 1
    return torch.cat([x, closeness], 1)


class Eager(nn.Module):
    """The same layer of plain torch functions, with the weight of another."""

    def __init__(self, layer: MinibatchDiscrimination) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        return appended(x, self.weight)


class EagerStdDev(nn.Module):
    """As StyleGAN2 has it."""

    def __init__(self, layer: MinibatchStdDev) -> None:
        super().__init__()
        self.group_size, self.num_channels = layer.group_size, layer.num_channels

    def forward(self, x: Tensor) -> Tensor:
        N, C, H, W = x.shape
        G = min(self.group_size, N) if self.group_size is not None else N
        F = self.num_channels
        y = x.reshape(G, -1, F, C // F, H, W)
        y = y - y.mean(dim=0)
        y = y.square().mean(dim=0)
        y = (y + 1e-8).sqrt()
        y = y.mean(dim=[2, 3, 4])
        y = y.reshape(-1, F, 1, 1)
        y = y.repeat(G, 1, H, W)
        return torch.cat([x, y], dim=1)


def in_plain_torch(critic: nn.Module) -> nn.Module:
    """A copy of the critic with eager layers in the place of ours."""
    critic = copy.deepcopy(critic)
    for at, layer in enumerate(critic):
        if isinstance(layer, MinibatchDiscrimination):
            critic[at] = Eager(layer)
        elif isinstance(layer, MinibatchStdDev):
            critic[at] = EagerStdDev(layer)
    return critic


@pytest.mark.parametrize("dtype", DTYPES)
def test_appends_closeness(backend: str, dtype: torch.dtype) -> None:
    layer = MinibatchDiscrimination(6, 5, 3, dtype=dtype)
    x, up = samples((9, 6), dtype), samples((9, 11), dtype, seed=1)
    results = []
    for function, x_in, weight, by in (
        (lambda x, w: torch.func.functional_call(layer, {"weight": w}, x), leaf(x), layer.weight, up),
        (appended, leaf(x), leaf(layer.weight), up),
        (appended, leaf(x.double()), leaf(layer.weight.double()), up.double()),
    ):
        y = function(x_in, weight)
        results.append((y.detach(), *torch.autograd.grad(y, (x_in, weight), by)))
    for name, ours, plain, exact in zip(("y", "gradient by x", "gradient by weight"), *results, strict=True):
        assert ours.dtype == dtype
        assert_as_good_as_torch(ours, plain, exact, name)
    assert torch.equal(results[0][0][:, :6], x)


def test_weight_is_the_only_parameter() -> None:
    layer = MinibatchDiscrimination(4, 3, 2)
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (4, 3, 2)}
    assert list(layer.state_dict()) == ["weight"]
    other = MinibatchDiscrimination(4, 3, 2, dtype=torch.float64, device="cpu")
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.weight, layer.weight.double())
    assert str(layer) == "MinibatchDiscrimination(4, 3, kernel_dim=2)"
    assert copy.deepcopy(layer).weight.requires_grad


def test_a_parametrized_weight_is_computed_once() -> None:
    class Counted(nn.Module):
        calls = 0

        def forward(self, weight: Tensor) -> Tensor:
            self.calls += 1
            return 2 * weight

    layer, x = MinibatchDiscrimination(4, 3, 2, dtype=torch.float64), samples((5, 4), torch.float64)
    expected = appended(x, 2 * layer.weight)
    counted = Counted()
    torch.nn.utils.parametrize.register_parametrization(layer, "weight", counted)
    before = counted.calls
    assert_same_by_another_route(layer(x), expected)
    assert counted.calls == before + 1
    assert_same_by_another_route(copy.deepcopy(layer)(x), expected)


def test_distances_are_of_order_one_at_first() -> None:
    torch.manual_seed(1)
    for in_features, kernel_dim in ((16, 4), (1024, 32)):
        layer = MinibatchDiscrimination(in_features, 50, kernel_dim)
        m = torch.randn(64, in_features) @ layer.weight.flatten(1)
        distances = torch.cdist(*2 * [m.unflatten(1, (50, kernel_dim)).transpose(0, 1)], p=1)
        assert 0.5 < distances.mean() < 2


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    layer = MinibatchDiscrimination(3, 2, 2, dtype=torch.float64)
    function = lambda x, w: torch.func.functional_call(layer, {"weight": w}, x)  # noqa: E731
    inputs = leaf(samples((4, 3), torch.float64)), leaf(samples((3, 2, 2), torch.float64, seed=1))
    assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def test_under_autocast(backend: str) -> None:
    layer, x = MinibatchDiscrimination(6, 5, 3), samples((9, 6), torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y, plain = layer(x), appended(x, layer.weight)
    assert y.dtype == torch.float32 and torch.equal(y[:, :6], x)
    assert_as_good_as_torch(y.detach(), plain.detach(), appended(x.double(), layer.weight.double()).detach())


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("group_size", "num_channels"), [(4, 1), (2, 3), (None, 2), (100, 1)])
def test_appends_deviations(backend: str, group_size: int | None, num_channels: int, dtype: torch.dtype) -> None:
    layer = MinibatchStdDev(group_size, num_channels)
    eager = EagerStdDev(layer)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        x = samples((8, 6, 3, 5), dtype).to(memory_format=memory_format)
        up = samples((8, 6 + num_channels, 3, 5), dtype, seed=1)
        results = []
        for of, x_in, by in ((layer, leaf(x), up), (eager, leaf(x), up), (eager, leaf(x.double()), up.double())):
            y = of(x_in)
            results.append((y.detach(), *torch.autograd.grad(y, x_in, by)))
        for ours, plain, exact in zip(*results, strict=True):
            assert_as_good_as_torch(ours, plain, exact)
        assert results[0][0].is_contiguous(memory_format=memory_format)


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 5), (4, 6, 2, 2, 2), (0, 6, 2)])
def test_any_number_of_dimensions(backend: str, shape: tuple[int, ...]) -> None:
    x = samples(shape, torch.float64)
    y = MinibatchStdDev(2, 3)(x)
    assert y.shape == (shape[0], 9, *shape[2:]) and torch.equal(y[:, :6], x)
    if len(x):
        flat = EagerStdDev(MinibatchStdDev(2, 3))(x.reshape(4, 6, -1, 1))
        assert_same_by_another_route(y.reshape(flat.shape), flat)


def test_half_width_floats(backend: str) -> None:
    for dtype in (torch.bfloat16, torch.float16):
        x = samples((4, 6, 2, 2), dtype)
        y = MinibatchStdDev()(x)
        assert y.dtype == dtype
        exact = EagerStdDev(MinibatchStdDev())(x.double())
        assert_as_good_as_torch(y, exact.to(dtype), exact)


def critic_with(layer: nn.Module, features: int) -> nn.Module:
    last = nn.Linear(features, 4), nn.Tanh(), nn.Linear(4, 1)
    return nn.Sequential(nn.Linear(6, 8), nn.LeakyReLU(0.2), layer, *last).double()


def images_with(layer: nn.Module, channels: int) -> nn.Module:
    first = nn.Unflatten(1, (2, 1, 3)), nn.Conv2d(2, 4, (1, 2)), nn.LeakyReLU(0.2)
    return nn.Sequential(*first, layer, nn.Conv2d(channels, 3, 1), nn.Tanh(), nn.Flatten(), nn.Linear(6, 1)).double()


CRITICS: dict[str, Callable[[], nn.Module]] = {
    "MinibatchDiscrimination": lambda: critic_with(MinibatchDiscrimination(8, 5, 3), 13),
    "MinibatchStdDev": lambda: images_with(MinibatchStdDev(4), 5),
    "MinibatchStdDev with blocks": lambda: images_with(MinibatchStdDev(2, 2), 6),
}


@pytest.mark.parametrize("route", ["auto", "closed_form", "functional", "double_backward"])
@pytest.mark.parametrize("name", CRITICS)
def test_penalty_of_a_critic_by_every_route(backend: str, name: str, route: str) -> None:
    """Its samples are mixed in the layer; the penalty is of the gradient of the sum of all scores by each."""
    critic = CRITICS[name]()
    plain = in_plain_torch(critic)
    real, fake = (samples((8, 6), torch.float64, seed=seed) for seed in (1, 2))
    mix = torch.linspace(0.1, 0.9, 8, dtype=torch.float64)
    ours = wk.gradient_penalty(critic, real, fake, mix=mix, route=route)
    x = leaf(mix[:, None] * real + (1 - mix[:, None]) * fake)
    (gradient,) = torch.autograd.grad(plain(x).sum(), x, create_graph=True)
    expected = 10 * ((gradient.norm(dim=1) - 1) ** 2).mean()
    assert_same_by_another_route(ours.detach(), expected.detach(), route)
    ours.backward()
    expected.backward()
    for (where, param), theirs in zip(critic.named_parameters(), plain.parameters(), strict=True):
        if theirs.grad is None:  # of the last bias
            assert param.grad is None or not param.grad.any()
        else:
            assert_same_by_another_route(param.grad, theirs.grad, f"{where} by {route}")


@pytest.mark.parametrize("name", CRITICS)
def test_what_is_said_of_such_a_critic(name: str) -> None:
    critic, x = CRITICS[name](), samples((8, 6), torch.float64)
    assert wk.explain_route(critic, x).name == "closed_form"
    (finding,) = wk.check_critic(critic, x)
    assert "depends on the other samples" in finding.problem


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: MinibatchDiscrimination(0, 1, 1), ValueError, "in_features must be at least 1, got 0"),
        (lambda: MinibatchDiscrimination(1, 1.5, 1), TypeError, "out_features must be a whole number, got float"),
        (lambda: MinibatchDiscrimination(1, 1, -1), ValueError, "kernel_dim must be at least 1, got -1"),
        (lambda: MinibatchDiscrimination(3, 2, 2)(torch.ones(4, 5)), ValueError, r"x must have the shape \(B, in"),
        (lambda: MinibatchDiscrimination(3, 2, 2)(torch.ones(3)), ValueError, r"in_features=3\), got \(3,\)"),
        (lambda: MinibatchDiscrimination(3, 2, 2)([1]), TypeError, "x must be a torch.Tensor, got list"),
        (lambda: MinibatchStdDev(0), ValueError, "group_size must be at least 1, got 0"),
        (lambda: MinibatchStdDev(4, 1.0), TypeError, "num_channels must be a whole number, got float"),
        (lambda: MinibatchStdDev(4)(torch.ones(6, 2, 1, 1)), ValueError, "group_size must divide the number of sam"),
        (lambda: MinibatchDiscrimination(3, 2, 2, group=3), ValueError, "group needs torch.distributed"),
    ],
)
def test_errors(call: Callable[[], Any], error: type[Exception], words: str) -> None:
    assert_same_error(call, error, words)
