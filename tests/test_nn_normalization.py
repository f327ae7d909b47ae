"""The normalization layers and what converts a critic to them: PyTorch's own, with other derivatives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import NARROW, samples
from critics import Call
from eager import eager_penalty, full_gradients
from tolerances import EAGER_FLOAT64, assert_as_good_as_torch, assert_same_by_another_route, largest
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import wgan_kernels as wk
from wgan_kernels.nn import GroupNorm, InstanceNorm2d, LayerNorm, convert_layers

IMAGES = (4, 6, 5, 7)
# Constructor and arguments: of PyTorch's layer and ours alike.
LAYERS: dict[str, tuple[str, tuple[Any, ...], dict[str, Any]]] = {
    "LayerNorm": ("LayerNorm", ([6, 5, 7],), {}),
    "LayerNorm of the last dimension": ("LayerNorm", (7,), {"eps": 1e-3}),
    "LayerNorm without bias": ("LayerNorm", ((5, 7),), {"bias": False}),
    "LayerNorm, not affine": ("LayerNorm", (7,), {"elementwise_affine": False}),
    "GroupNorm": ("GroupNorm", (3, 6), {}),
    "GroupNorm without bias": ("GroupNorm", (1, 6), {"bias": False, "eps": 1e-3}),
    "GroupNorm, not affine": ("GroupNorm", (6, 6), {"affine": False}),
    "InstanceNorm2d": ("InstanceNorm2d", (6,), {}),
    "InstanceNorm2d, affine": ("InstanceNorm2d", (6,), {"affine": True}),
    "InstanceNorm2d with statistics": ("InstanceNorm2d", (6,), {"affine": True, "track_running_stats": True}),
}
OURS = {"LayerNorm": LayerNorm, "GroupNorm": GroupNorm, "InstanceNorm2d": InstanceNorm2d}
each_layer = pytest.mark.parametrize("name", LAYERS)


def pair(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, nn.Module]:
    """PyTorch's layer and ours, with the same parameters."""
    kind, args, settings = LAYERS[name]
    theirs, ours = getattr(nn, kind)(*args, **settings, dtype=dtype), OURS[kind](*args, **settings, dtype=dtype)
    with torch.no_grad():
        for k, param in enumerate(theirs.parameters()):
            param.copy_(samples(tuple(param.shape), torch.float64, seed=k) + 1)
    ours.load_state_dict(theirs.state_dict())
    return theirs, ours


def outcome(layer: nn.Module, x: Tensor) -> list[Tensor]:
    """Value, gradients and second derivatives."""
    x, params = x.detach().requires_grad_(), list(layer.parameters())
    y = layer(x)
    (first,) = torch.autograd.grad(y, x, samples(IMAGES, x.dtype, seed=2), create_graph=True)
    second = torch.autograd.grad((first * samples(IMAGES, x.dtype, seed=3)).sum(), [x, *params], allow_unused=True)
    by_params = torch.autograd.grad(layer(x).square().sum(), params) if params else ()
    return [t.detach() for t in (y, first, *second, *by_params) if t is not None]


@each_layer
def test_is_the_layer_of_pytorch(backend: str, name: str) -> None:
    theirs, ours = pair(name)
    assert isinstance(ours, type(theirs)) and type(ours) is not type(theirs) and repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for layout in ("contiguous", "permuted"):
        for training in (True, False):
            x = samples(IMAGES, torch.float64, layout, seed=1)
            expected = outcome(theirs.train(training), x.contiguous())  # PyTorch's own may crash in channels_last
            for a, b in zip(outcome(ours.train(training), x), expected, strict=True):
                assert_same_by_another_route(a, b, f"{name}, {layout}")
    for a, b in zip(ours.buffers(), theirs.buffers(), strict=True):
        assert torch.equal(a, b)


@each_layer
def test_keeps_the_memory_format(native: None, name: str) -> None:
    x = samples(IMAGES, torch.float32, "permuted", seed=1)
    _, ours = pair(name, torch.float32)
    if "statistics" not in name and "(5, 7)" not in str(ours):  # of which a sample is no stretch of memory
        assert ours(x).stride() == x.stride()


@pytest.mark.parametrize("wide_params", [False, True])
@pytest.mark.parametrize("dtype", NARROW)
@each_layer
def test_half_floats(backend: str, name: str, dtype: torch.dtype, wide_params: bool) -> None:
    theirs, ours = pair(name, torch.float32 if wide_params else dtype)
    exact = copy.deepcopy(theirs).double()
    x = samples(IMAGES, dtype, seed=1)
    results = [outcome(ours, x), outcome(theirs, x), outcome(exact, x.double())]
    for a, b, c in zip(*results, strict=True):
        assert a.dtype == b.dtype
        assert_as_good_as_torch(a, b, c, name, terms=10.0)


@each_layer
def test_autocast(backend: str, name: str) -> None:
    theirs, ours = pair(name, torch.float32)
    for dtype in (torch.float32, torch.bfloat16):
        x = samples(IMAGES, dtype, seed=1)
        with torch.autocast("cpu", torch.bfloat16):
            assert ours(x).dtype == theirs(x).dtype == dtype


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (LayerNorm(3), torch.ones(2, 4)),
        (LayerNorm([2, 3]), torch.ones(3)),
        (LayerNorm(3), torch.ones(2, 3, dtype=torch.int64)),
        (LayerNorm(3), torch.ones(2, 3, dtype=torch.float64)),
        (GroupNorm(2, 4), torch.ones(2, 6)),
        (GroupNorm(2, 2), torch.ones(1, 2)),
        (GroupNorm(2, 4), torch.ones(4)),
        (InstanceNorm2d(2, affine=True), torch.ones(1, 3, 4, 4)),
        (InstanceNorm2d(2), torch.ones(1, 2, 1, 1)),
        (InstanceNorm2d(2), torch.ones(3, 4)),
    ],
    ids=str,
)
def test_refuses_what_pytorch_refuses_and_in_its_words(backend: str, layer: nn.Module, x: Tensor) -> None:
    errors = []
    for kind in (type(layer), type(layer).__mro__[1]):
        other = copy.deepcopy(layer)
        other.__class__ = kind
        with pytest.raises(Exception) as caught:  # noqa: B017 - whatever it is
            other(x)
        errors.append((caught.type, str(caught.value)))
    assert errors[0] == errors[1]


def test_inputs_without_a_batch_and_without_numbers(backend: str) -> None:
    x = samples((6, 5, 7), torch.float32)
    assert torch.equal(InstanceNorm2d(6)(x), nn.InstanceNorm2d(6)(x))
    assert LayerNorm(7)(torch.ones(0, 7)).shape == (0, 7)
    assert_same_by_another_route(LayerNorm(7)(x[0, 0]), nn.LayerNorm(7)(x[0, 0]))


def test_tensors_that_are_made_of_others(backend: str, mesh: Any) -> None:
    """Theirs is the layer of PyTorch, whose operators alone they know."""
    from torch.distributed.tensor import Shard, distribute_module, distribute_tensor

    rows = samples((4, 6), torch.float32, seed=1)
    spread = distribute_module(LayerNorm(6), mesh)(distribute_tensor(rows, mesh, [Shard(0)]))
    assert torch.equal(spread.full_tensor(), nn.LayerNorm(6)(rows))
    nested = LayerNorm(6)(torch.nested.nested_tensor([rows[:1], rows[1:]]))
    assert torch.equal(torch.cat(nested.unbind()), nn.LayerNorm(6)(rows))


@pytest.mark.filterwarnings("ignore")  # torch.jit is deprecated; PyTorch's layers look at sizes
@pytest.mark.parametrize("name", ["LayerNorm", "GroupNorm", "InstanceNorm2d, affine"])
def test_traced(backend: str, name: str) -> None:
    """What was recorded is PyTorch's own layer: it is saved, loaded and differentiated without the library."""
    theirs, ours = pair(name)
    traced = torch.jit.trace(ours, samples(IMAGES, torch.float64, seed=1))
    operators = {node.kind() for node in traced.inlined_graph.nodes()}
    assert any("norm" in kind for kind in operators) and all(kind.startswith(("aten", "prim")) for kind in operators)
    x = samples(IMAGES, torch.float64, seed=2)
    for a, b in zip(outcome(traced, x), outcome(theirs, x), strict=True):
        assert_same_by_another_route(a, b)


def test_torch_func_and_forward_mode(backend: str) -> None:
    theirs, ours = pair("GroupNorm")
    x = samples(IMAGES, torch.float64, seed=1)
    gradient = lambda layer: torch.func.grad(lambda x: layer(x).sin().sum())  # noqa: E731
    of_each = lambda layer: torch.func.vmap(lambda x: layer(x[None]))  # noqa: E731
    for transform in (gradient, of_each):
        assert_same_by_another_route(transform(ours)(x), transform(theirs)(x))
    tangent = samples(IMAGES, torch.float64, seed=2)
    for a, b in zip(*[torch.func.jvp(layer, (x,), (tangent,)) for layer in (ours, theirs)]):
        assert_same_by_another_route(a, b)


def test_compiled(native: None) -> None:
    for name in ("LayerNorm", "GroupNorm", "InstanceNorm2d, affine"):
        _, ours = pair(name, torch.float32)
        compiled = torch.compile(ours, fullgraph=True)
        x = samples(IMAGES, torch.float32, seed=1)
        results = [torch.autograd.grad(each(x).square().sum(), list(ours.parameters())) for each in (compiled, ours)]
        for a, b in zip(*results, strict=True):
            assert_same_by_another_route(a, b)


# ---- conversion


def critic(layout: str = "contiguous") -> nn.Module:
    torch.manual_seed(3)
    layers = [
        nn.Conv2d(3, 6, 3, padding=1), nn.GroupNorm(2, 6), nn.LeakyReLU(0.2), nn.Conv2d(6, 6, 3, 2, 1),
        nn.InstanceNorm2d(6, affine=True), nn.Tanh(), nn.LayerNorm([6, 4, 4]), nn.Flatten(), nn.Linear(96, 9),
        nn.LayerNorm(9), nn.Softplus(), nn.Linear(9, 1),
    ]  # fmt: skip
    model = nn.Sequential(*layers).double()
    with torch.no_grad():
        for k, param in enumerate(model.parameters()):
            param.add_(samples(tuple(param.shape), torch.float64, seed=k) * 0.3)
    return model.to(memory_format=torch.channels_last) if layout == "permuted" else model


def test_conversion_swaps_the_class_of_what_is_there() -> None:
    class Own(nn.LayerNorm):
        pass

    model = nn.ModuleDict({"a": critic(), "own": Own(3), "batch": nn.BatchNorm2d(2), "tracked": nn.InstanceNorm2d(2)})
    model["again"] = model["a"]
    model["a"][1].eval()
    seen = []
    model["a"][1].register_forward_hook(lambda module, args, out: seen.append(type(module)))
    before = {name: module for name, module in model.named_modules()}
    params, state = list(model.parameters()), model.state_dict()
    assert convert_layers(model) is model
    assert {name: module for name, module in model.named_modules()} == before
    assert all(a is b for a, b in zip(model.parameters(), params, strict=True))
    assert list(model.state_dict()) == list(state) and not model["a"][1].training and model["a"][4].training
    kinds = [type(model["a"][at]) for at in (1, 4, 6, 9)]
    assert kinds == [GroupNorm, InstanceNorm2d, LayerNorm, LayerNorm]
    assert type(model["tracked"]) is InstanceNorm2d
    assert type(model["own"]) is Own and type(model["batch"]) is nn.BatchNorm2d
    model["a"](torch.zeros(1, 3, 8, 8).double())
    assert seen == [GroupNorm]
    assert convert_layers(model) is model and kinds == [type(model["a"][at]) for at in (1, 4, 6, 9)]
    copied = copy.deepcopy(model)
    assert type(copied["a"][1]) is GroupNorm
    assert type(convert_layers(nn.LayerNorm(3))) is LayerNorm
    with pytest.raises(TypeError, match="critic must be a torch.nn.Module, got function"):
        convert_layers(lambda x: x)


@pytest.mark.parametrize("layout", ["contiguous", "permuted"])
@pytest.mark.parametrize("route", ["closed_form", "functional", "double_backward", "auto"])
def test_penalty_of_a_converted_critic_is_that_of_the_critic(backend: str, route: str, layout: str) -> None:
    x = samples((5, 3, 8, 8), torch.float64, layout, seed=1)
    plain = critic()
    expected, _ = eager_penalty(plain, x.contiguous())
    converted = convert_layers(critic(layout))
    value = wk.gradient_penalty(converted, x, None, points="real", route=route)
    assert abs(value - expected) < EAGER_FLOAT64
    pairs = list(zip(full_gradients(value, converted), full_gradients(expected, plain), strict=True))
    assert max(largest(b) for _, b in pairs) > 1e-2
    assert max(largest(a - b) for a, b in pairs) < EAGER_FLOAT64


@pytest.mark.parametrize("layout", ["contiguous", "permuted"])
def test_a_converted_critic_keeps_its_closed_form(backend: str, layout: str) -> None:
    x = samples((2, 3, 8, 8), torch.float64, layout, seed=1)
    assert wk.explain_route(convert_layers(critic(layout)), x).name == "closed_form"
    perceptron = convert_layers(nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Tanh(), nn.Linear(8, 1)))
    assert wk.explain_route(perceptron, torch.randn(3, 6)).name == "closed_form"


@pytest.mark.parametrize("convert", [convert_layers, lambda critic: critic], ids=["converted", "as it is"])
def test_the_closed_form_has_one_step_for_a_layer(native: None, convert: Callable[[nn.Module], nn.Module]) -> None:
    """Four passes of the operator, and none by autograd."""
    from torch.utils._python_dispatch import TorchDispatchMode

    class Names(TorchDispatchMode):
        names: list[str] = []

        def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            self.names.append(function._schema.name)
            return function(*args, **(kwargs or {}))

    layers = [nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4), Call(lambda x: x.mean([2, 3])), nn.Linear(4, 1)]
    model = convert(nn.Sequential(*layers))
    x = samples((2, 3, 8, 8), torch.float32, seed=1)
    with Names() as seen:
        wk.gradient_penalty(model, x, None, points="real", route="closed_form").backward()
    passes = [name.partition("::")[2] for name in seen.names if "norm" in name and "penalty" not in name]
    passes = [name for name in passes if "group" in name]
    assert passes == ["group_norm", "group_norm_backward", "group_norm_double_backward"]


def test_second_derivatives_of_a_training_step(backend: str) -> None:
    """The penalty beside the critic's own loss, one backward for both."""
    x = samples((5, 3, 8, 8), torch.float64, seed=1)
    results = []
    for model in (critic(), convert_layers(critic())):
        penalty, _ = eager_penalty(model, x)
        (penalty + model(x).mean()).backward()
        results.append([param.grad for param in model.parameters()])
    for a, b in zip(*results, strict=True):
        assert largest(a - b) < EAGER_FLOAT64


def test_ways_to_ask_for_gradients(backend: str) -> None:
    """Several at once, through a checkpoint, and by what stands for the parameters."""
    theirs, ours = pair("GroupNorm")
    x = samples(IMAGES, torch.float64, seed=1).requires_grad_()
    outer = samples((2, *IMAGES), torch.float64, seed=2)
    results = []
    for layer in (ours, theirs):
        given = x, *layer.parameters()
        batched = torch.autograd.grad(layer(x), given, outer, is_grads_batched=True)
        kept = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), given)
        others = {name: (param * 2).detach().requires_grad_() for name, param in layer.named_parameters()}
        value = torch.func.functional_call(layer, others, (x,)).square().sum()
        results.append([*batched, *kept, *torch.autograd.grad(value, [x, *others.values()])])
    for a, b in zip(*results, strict=True):
        assert_same_by_another_route(a, b)
