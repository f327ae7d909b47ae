"""nn.BiasLeakyReLU and nn.LeakyReLU: the layers, and critics with them, by every route of the gradient penalty."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from cases import assert_same_error, leaf, samples
from tolerances import EAGER_FLOAT64, assert_same_by_another_route, largest
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

import wgan_kernels as wk
from wgan_kernels.nn import BiasLeakyReLU, LeakyReLU

ROUTES = ("closed_form", "functional", "double_backward")


class Plain(nn.Module):
    """BiasLeakyReLU as people write it."""

    def __init__(self, layer: BiasLeakyReLU) -> None:
        super().__init__()
        self.negative_slope, self.gain, self.clamp = layer.negative_slope, layer.gain, layer.clamp
        self.bias = layer.bias

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            x = x + self.bias.view(1, -1, *[1] * (x.dim() - 2))
        y = functional.leaky_relu(x, self.negative_slope) * self.gain
        return y if self.clamp is None else y.clamp(-self.clamp, self.clamp)


def plain(critic: nn.Module) -> nn.Module:
    """A copy with PyTorch's own functions for the layers here."""
    critic = copy.deepcopy(critic)
    for name, module in list(critic.named_modules()):
        if isinstance(module, (BiasLeakyReLU, LeakyReLU)):
            parent = critic.get_submodule(name.rpartition(".")[0])
            own = Plain(module) if isinstance(module, BiasLeakyReLU) else nn.LeakyReLU(module.negative_slope)
            setattr(parent, name.rpartition(".")[2], own)
    return critic


def convolutions(clamp: float | None = None, gain: float = 1.0) -> nn.Module:
    layers = [nn.Conv2d(2, 6, 3, bias=False), BiasLeakyReLU(6, 0.2, gain, clamp), nn.Conv2d(6, 5, 3, 2, bias=False)]
    layers += [BiasLeakyReLU(5, 0.1, bias=False), nn.Flatten(), nn.Linear(45, 7, bias=False), BiasLeakyReLU(7, 0.0)]
    return nn.Sequential(*layers, nn.Linear(7, 1))


def with_curvature() -> nn.Module:
    """Biases below layers that bend owe them a gradient."""
    layers = [nn.Conv2d(2, 4, 3, bias=False), BiasLeakyReLU(4, 0.2, clamp=1.5), nn.GroupNorm(2, 4), nn.Conv2d(4, 3, 3)]
    return nn.Sequential(*layers, LeakyReLU(0.3), nn.Flatten(), nn.Linear(75, 6), nn.Tanh(), nn.Linear(6, 1))


def fully_connected() -> nn.Module:
    layers = [nn.Flatten(), nn.Linear(162, 9, bias=False), BiasLeakyReLU(9, 0.2), nn.Linear(9, 5), LeakyReLU()]
    return nn.Sequential(*layers, nn.Linear(5, 1))


CRITICS = {
    "convolutions": convolutions,
    "with gain and clamp": lambda: convolutions(0.5, 2**0.5),
    "with curvature": with_curvature,
    "fully connected": fully_connected,
}


def critic_of(name: str) -> nn.Module:
    critic = CRITICS[name]().double()
    for seed, param in enumerate(critic.parameters()):
        param.data.copy_(samples(tuple(param.shape), torch.float64, seed=seed) * 0.4)
    return critic


def penalised(critic: nn.Module, route: str) -> tuple[Tensor, list[Tensor]]:
    """The penalty, and the gradients of it with the critic's loss; none counts as zeros."""
    real, fake = (samples((6, 2, 9, 9), torch.float64, seed=seed) for seed in (1, 2))
    mix = torch.linspace(0.1, 0.9, 6, dtype=torch.float64)
    value = wk.gradient_penalty(critic, real, fake, mix=mix, route=route)
    params = list(critic.parameters())
    grads = torch.autograd.grad(value, params, allow_unused=True)
    return value, [torch.zeros_like(p) if grad is None else grad for p, grad in zip(params, grads)]


@pytest.mark.parametrize("name", CRITICS)
def test_every_route_is_plain_pytorch(backend: str, name: str) -> None:
    critic = critic_of(name)
    value, expected = penalised(plain(critic), "double_backward")
    assert any([grad.any() for grad in expected])
    for route in ROUTES:
        found, grads = penalised(critic, route)
        assert abs(found.item() - value.item()) < EAGER_FLOAT64, route
        for (param, _), ours, theirs in zip(critic.named_parameters(), grads, expected, strict=True):
            assert largest(ours - theirs) < EAGER_FLOAT64, f"{param} by {route}"


def test_a_fully_connected_critic_of_drop_ins_stays_one_operator(native: None) -> None:
    critic = nn.Sequential(nn.Linear(7, 9), LeakyReLU(0.2), nn.Linear(9, 1))
    assert "one operator" in wk.explain_route(critic, torch.ones(2, 7)).reason
    critic[1] = type("Other", (LeakyReLU,), {})()
    assert "one operator" not in wk.explain_route(critic, torch.ones(2, 7)).reason


@pytest.mark.parametrize("name", CRITICS)
def test_they_keep_the_closed_form(backend: str, name: str) -> None:
    route = wk.explain_route(critic_of(name), torch.ones(2, 2, 9, 9, dtype=torch.float64))
    assert route.name == "closed_form", route.reason


def test_who_gets_a_gradient_is_the_same_by_every_route(native: None) -> None:
    """PyTorch's own functions give zeros where there are no second derivatives."""
    for name in CRITICS:
        given = []
        for route in ("closed_form", "double_backward"):
            critic = critic_of(name)
            real = samples((3, 2, 9, 9), torch.float64)
            wk.gradient_penalty(critic, real, None, points="real", route=route).backward()
            given.append([param.grad is not None for param in critic.parameters()])
        assert given[0] == given[1], name


def test_the_closed_form_has_one_step_for_a_layer(native: None) -> None:
    """A pass forward, and one for each sweep; none by autograd."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        names: list[str] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(function._schema.name.partition("::")[2])
            return function(*args, **(kwargs or {}))

    model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), BiasLeakyReLU(4, 0.2), nn.Flatten(), nn.Linear(196, 1))
    with Names() as seen:
        x = samples((2, 2, 9, 9), torch.float32)
        wk.gradient_penalty(model, x, None, points="real", route="closed_form").backward()
    passes = [name for name in seen.names if "leaky" in name]
    assert passes == ["bias_leaky_relu", "bias_leaky_relu_double_backward", "bias_leaky_relu_double_backward"]


def test_ways_to_ask_for_gradients(backend: str) -> None:
    """Several at once, through a checkpoint, and by what stands for the parameters."""
    ours = BiasLeakyReLU(3, 0.2, 1.4, 1.0, dtype=torch.float64)
    nn.init.normal_(ours.bias)
    x = leaf(samples((4, 3, 5), torch.float64, seed=1))
    outer = samples((2, 4, 3, 5), torch.float64, seed=2)
    results = []
    for layer in (ours, Plain(ours)):
        given = x, *layer.parameters()
        batched = torch.autograd.grad(layer(x), given, outer, is_grads_batched=True)
        kept = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), given)
        others = {name: (param * 2).detach().requires_grad_() for name, param in layer.named_parameters()}
        value = torch.func.functional_call(layer, others, (x,)).square().sum()
        results.append([*batched, *kept, *torch.autograd.grad(value, [x, *others.values()])])
    for a, b in zip(*results, strict=True):
        assert_same_by_another_route(a, b)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_under_autocast(backend: str, dtype: torch.dtype) -> None:
    """Results stay half floats beside a float32 bias."""
    critic = convolutions()
    x = samples((4, 2, 9, 9), torch.float32)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        assert critic[1](critic[0](x)).dtype == dtype
        for route in ROUTES:
            wk.gradient_penalty(critic, x, None, points="real", route=route).backward()
    assert critic[1].bias.grad is None or critic[1].bias.grad.dtype == torch.float32


def test_the_layer(backend: str) -> None:
    layer = BiasLeakyReLU(3, 0.2, 1.5, 2.0, dtype=torch.float64)
    assert [*layer.state_dict()] == ["bias"] and not layer.bias.any() and layer.bias.dtype == torch.float64
    assert repr(layer) == "BiasLeakyReLU(3, negative_slope=0.2, gain=1.5, clamp=2.0, bias=True)"
    nn.init.normal_(layer.bias)
    x = samples((5, 3, 4), torch.float64)
    assert_same_by_another_route(layer(x), Plain(layer)(x))
    again = BiasLeakyReLU(3, 0.2, 1.5, 2.0, dtype=torch.float64)
    again.load_state_dict(layer.state_dict())
    assert torch.equal(again(x), layer(x))
    assert BiasLeakyReLU(3, bias=False).state_dict() == {} and "bias=False" in repr(BiasLeakyReLU(3, bias=False))
    layer.reset_parameters()
    assert not layer.bias.any()


def test_the_drop_in_is_torchs(backend: str) -> None:
    for slope in (0.0, 0.01, 0.2, -0.5):
        for inplace in (False, True):
            ours, theirs = LeakyReLU(slope, inplace), nn.LeakyReLU(slope, inplace)
            x = samples((5, 3, 4), torch.float64)
            results = []
            for layer in (ours, theirs):
                h = leaf(x)
                y = layer(h * 1) if not (inplace and slope < 0) else layer((h * 1).detach())
                results.append([y, *(torch.autograd.grad(y.square().sum(), h) if y.requires_grad else ())])
            for a, b in zip(*results, strict=True):
                assert_same_by_another_route(a, b)
    assert repr(LeakyReLU(0.2)) == repr(nn.LeakyReLU(0.2)) and LeakyReLU().state_dict() == {}
    assert isinstance(LeakyReLU(), nn.LeakyReLU)


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated
def test_the_drop_in_leaves_tensors_made_of_others_and_traces_to_torch(backend: str, mesh: Any) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    x, layer = samples((4, 6), torch.float32), LeakyReLU(0.2)
    assert torch.equal(layer(distribute_tensor(x, mesh, [Shard(0)])).full_tensor(), functional.leaky_relu(x, 0.2))
    kinds = {node.kind() for node in torch.jit.trace(layer, leaf(x)).inlined_graph.nodes()}
    assert "aten::leaky_relu" in kinds and all(kind.startswith(("aten", "prim")) for kind in kinds)
    with pytest.raises(TypeError):
        LeakyReLU()([1.0])


def test_hooks_and_compiled_critics(backend: str) -> None:
    critic = critic_of("with gain and clamp")
    seen: list[torch.Size] = []
    critic[1].register_forward_hook(lambda module, args, out: seen.append(out.shape))
    expected = penalised(critic, "double_backward")[1]
    found = penalised(critic, "closed_form")[1]
    assert seen == [torch.Size((6, 6, 7, 7))] * 2
    for a, b in zip(found, expected, strict=True):
        assert largest(a - b) < EAGER_FLOAT64


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"num_features": 0}, ValueError, ["num_features", "at least 1", "0"]),
        ({"num_features": 2.5}, TypeError, ["num_features", "whole number", "float"]),
        ({"negative_slope": -0.2}, ValueError, ["negative_slope", "at least 0", "-0.2"]),
        ({"gain": -1.0}, ValueError, ["gain", "greater than 0"]),
        ({"clamp": -1.0}, ValueError, ["clamp", "greater than 0"]),
        ({"bias": 1}, TypeError, ["bias", "True or False", "int"]),
    ],
)
def test_bad_arguments(arguments: dict[str, object], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: BiasLeakyReLU(**{"num_features": 3, **arguments}), error, *words)


def test_an_input_of_other_channels_is_refused() -> None:
    assert_same_error(lambda: BiasLeakyReLU(3)(torch.ones(2, 4)), ValueError, "bias", r"\(4,\)", r"\(3,\)")
