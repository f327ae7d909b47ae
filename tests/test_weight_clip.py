"""clip_weights_: the values of torch.clamp_, the behaviour of an optimiser's step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    LARGE,
    LAYOUTS,
    SHAPES,
    assert_same_bits,
    assert_same_error,
    available_backends,
    each_backend,
    lay_out,
)
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

import wgan_kernels as wk
from wgan_kernels import clip_weights_

INF = torch.inf
BOUNDS = [(-0.01, 0.01), (-0.0, 0.5), (0.0, 0.0), (0.3, 0.3), (-1.5, -0.7), (-INF, 0.2), (-0.2, INF), (-1, 1)]


def weights(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous") -> Tensor:
    """Normal numbers with every special one among them, and the neighbours of the bounds."""
    info = torch.finfo(dtype)
    special = [torch.nan, torch.inf, -torch.inf, 0.0, -0.0, info.max, info.min, info.smallest_normal, info.eps]
    special += [info.smallest_normal / 2, -info.smallest_normal / 2]
    edges = torch.tensor([bound for pair in BOUNDS for bound in pair], dtype=torch.float64).to(dtype)
    edges = [edges] + [torch.nextafter(edges, torch.full_like(edges, end)) for end in (-torch.inf, torch.inf)]
    pool = torch.cat([torch.tensor(special, dtype=dtype), *edges, torch.randn(40, dtype=torch.float64).to(dtype)])
    numel = torch.Size(shape).numel()
    values = pool.repeat(numel // len(pool) + 1)[torch.randperm(numel)] if numel else pool[:0]
    return lay_out(values.reshape(shape), layout)


def base_of(view: Tensor) -> Tensor:
    """All the memory behind a view."""
    return torch.empty(0, dtype=view.dtype).set_(view.untyped_storage())


@pytest.mark.parity
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if not layout.startswith("expanded")])
@pytest.mark.parametrize("dtype", DTYPES)
def test_equals_clamp_bit_for_bit_and_touches_nothing_else(backend: str, dtype: torch.dtype, layout: str) -> None:
    for shape in [*SHAPES, (), *([LARGE] if dtype in (torch.float32, torch.float16) else [])]:
        for low, high in BOUNDS[:: 1 if shape != LARGE else 5]:
            ours = weights(shape, dtype, layout if shape else "contiguous")
            memory = base_of(ours).clone()
            theirs = memory.as_strided(ours.shape, ours.stride(), ours.storage_offset())
            theirs.clamp_(low, high)
            assert clip_weights_([ours], low, high) is None
            assert_same_bits(base_of(ours), memory, f"{shape} to [{low}, {high}]")


@given(
    data=st.data(),
    dtype=st.sampled_from(DTYPES),
    shape=st.lists(st.integers(0, 9), max_size=4),
    low=st.floats(-2, 2),
    span=st.floats(0, 2),
)
def test_equals_clamp_for_drawn_values(
    data: Any, dtype: torch.dtype, shape: list[int], low: float, span: float
) -> None:
    numbers = st.floats(-3, 3, width=32) | st.sampled_from([torch.nan, torch.inf, -torch.inf])
    numel = torch.Size(shape).numel()
    values = torch.tensor(data.draw(st.lists(numbers, min_size=numel, max_size=numel)), dtype=dtype).reshape(shape)
    values = values.movedim(0, -1) if values.dim() > 1 else values
    for _ in each_backend():
        ours = values.clone(memory_format=torch.preserve_format)
        clip_weights_(ours, low, low + span)
        assert_same_bits(ours, values.clone().clamp_(low, low + span))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_a_bound_beyond_the_dtype_acts_alike_on_every_back_end(dtype: torch.dtype) -> None:
    high = 1e300 if dtype is torch.float32 else 1e6
    outcomes = {}
    for name in each_backend():
        params = [torch.full((3,), 5.0, dtype=torch.float64), torch.full((2,), -5.0, dtype=dtype)]
        try:
            clip_weights_(params, -1.0, high)
        except (ValueError, RuntimeError) as error:
            outcomes[name] = str(error)
            assert params[0].eq(5).all() and params[1].eq(-5).all(), f"{name}: written before it was refused"
        else:
            outcomes[name] = str(params)
    assert len(set(outcomes.values())) == 1, outcomes


class Critic(nn.Module):
    """A critic of several dtypes, layouts and kinds of layers, one parameter of which is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Linear(4, 5).double(), nn.LayerNorm(5))
        self.body[0].to(memory_format=torch.channels_last)
        self.head = nn.Linear(5, 1).to(torch.bfloat16)
        self.header = nn.Linear(2, 2)
        self.tied = nn.Linear(4, 5).double()
        self.tied.weight = self.body[2].weight
        self.scale = nn.Parameter(torch.ones(()))
        with torch.no_grad():
            for param in self.parameters():
                param.copy_(torch.randn(param.shape) * 3)


def largest_weight(params: Any) -> float:
    return max(param.detach().abs().max().item() for param in params)


class Calls(TorchDispatchMode):
    """The operators that were called, with the length of their first argument."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, int]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.calls.append((str(func), len(args[0]) if isinstance(args[0], (list, tuple)) else 1))
        return func(*args, **(kwargs or {}))


def test_a_whole_critic_in_one_operator_call_with_shared_weights_once(native: None) -> None:
    critic = Critic()
    with Calls() as seen:
        clip_weights_(critic, 0.01)
    unique = len(list(critic.parameters()))
    assert seen.calls == [("wgan_kernels.clip_weights_.default", unique)]
    assert largest_weight(critic.parameters()) <= 0.0101


def test_takes_modules_tensors_and_iterables(backend: str) -> None:
    for give in (lambda c: c, lambda c: c.parameters(), lambda c: tuple(c.parameters()), lambda c: set(c.parameters())):
        critic = Critic()
        expected = [param.detach().clone().clamp_(-0.01, 0.01) for param in critic.parameters()]
        clip_weights_(give(critic), 0.01)
        for param, clipped in zip(critic.parameters(), expected, strict=True):
            assert_same_bits(param.detach(), clipped)
    alone = torch.tensor([-3.0, 0.5, 3.0])
    clip_weights_(alone, 1)
    assert alone.tolist() == [-1, 0.5, 1]
    clip_weights_([alone, torch.empty(0), alone, alone[1:]], low=0, high=0.75)  # one memory several times
    assert alone.tolist() == [0, 0.5, 0.75]


def test_works_like_an_optimisers_step(backend: str) -> None:
    critic = Critic()
    critic.head.weight.grad = torch.ones_like(critic.head.weight)
    assert torch.is_grad_enabled()
    clip_weights_(critic, 0.5)
    for param in critic.parameters():
        assert param.requires_grad and param.is_leaf and param.grad_fn is None
    assert critic.head.weight.grad.eq(1).all()


@pytest.mark.parametrize("how", ["list", "module", "view"])
def test_a_backward_through_weights_saved_before_the_clipping_raises(backend: str, how: str) -> None:
    layer = nn.Linear(3, 2)
    x = torch.ones(4, 3, requires_grad=True)
    loss = (layer(x) ** 2).sum()  # saves the weight for the gradient by x
    versions = [param._version for param in layer.parameters()]
    give = {"list": [layer.weight, layer.bias], "module": layer, "view": [layer.weight.detach(), layer.bias.detach()]}
    clip_weights_(give[how], 0.01)
    assert all(param._version > before for param, before in zip(layer.parameters(), versions, strict=True))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_the_next_forward_and_backward_see_the_clipped_weights(backend: str) -> None:
    weight = nn.Parameter(torch.tensor([2.0, -3.0]))
    clip_weights_([weight], 0.5)
    (weight**2).sum().backward()
    assert weight.grad.tolist() == [1.0, -1.0]


def test_under_no_grad_and_inference_mode(backend: str) -> None:
    with torch.no_grad():
        clip_weights_(weight := nn.Parameter(torch.ones(3)), 0.5)
    assert weight.tolist() == [0.5] * 3
    with torch.inference_mode():
        clip_weights_(weight, 0.25)
        clip_weights_(made_here := torch.ones(3), 0.25)
    assert weight.tolist() == made_here.tolist() == [0.25] * 3


def bad_tensors() -> dict[str, tuple[Callable[[], Any], type[Exception], str]]:
    needs_grad = torch.ones(3, requires_grad=True)
    return {
        "integer": (lambda: torch.ones(3, dtype=torch.int64), TypeError, "int64"),
        "complex": (lambda: torch.ones(3, dtype=torch.complex64), TypeError, "complex64"),
        "bool": (lambda: torch.ones(3, dtype=torch.bool), TypeError, "bool"),
        "sparse": (lambda: torch.eye(3).to_sparse(), TypeError, "sparse_coo"),
        "list": (lambda: [1.0, 2.0], TypeError, "list"),
        "none": (lambda: None, TypeError, "NoneType"),
        "number": (lambda: 2.0, TypeError, "float"),
        "meta": (lambda: torch.ones(3, device="meta"), ValueError, "device.*meta"),
        "lazy": (lambda: nn.LazyLinear(2).weight, ValueError, "lazy"),
        "graph": (lambda: needs_grad * 2, ValueError, "MulBackward"),
        "view of a parameter": (lambda: nn.Parameter(torch.ones(4))[1:], ValueError, "detached"),
        "expanded": (lambda: torch.ones(1, 3).expand(2, 3), ValueError, "expanded"),
    }


@pytest.mark.parametrize("first", [False, True], ids=["last", "first"])
@pytest.mark.parametrize("kind", bad_tensors())
def test_one_bad_tensor_and_nothing_is_written(kind: str, first: bool) -> None:
    make, error, word = bad_tensors()[kind]
    messages = set()
    for name in each_backend():
        good, bad = torch.full((3,), 5.0), make()
        with pytest.raises(error, match=word) as caught:
            clip_weights_([bad, good] if first else [good, torch.full((2, 2), 5.0), bad], 0.01)
        assert good.eq(5).all(), f"{name}: a good tensor was written"
        assert good._version == 0, f"{name}: a version was bumped for nothing"
        if isinstance(bad, Tensor) and not bad.is_meta and not isinstance(bad, nn.parameter.UninitializedTensorMixin):
            assert bad.to_dense().detach().sum() == make().to_dense().sum(), f"{name}: the bad tensor was written"
        messages.add(str(caught.value))
    assert len(messages) == 1, messages
    # With tensors on two devices either may be the one that is named.
    assert ("params[0]" if first and kind != "meta" else f"params[{1 if first else 2}]") in messages.pop()


def test_bounds_that_are_refused() -> None:
    weight = torch.full((3,), 5.0)
    for bad in (True, "0.1", None, torch.tensor(0.1), [0.1]):
        words = ("low must be a number", type(bad).__name__)
        assert_same_error(lambda bad=bad: clip_weights_([weight], bad), TypeError, *words)
    for bad in (False, "0.1", torch.tensor(0.1)):
        words = ("high must be a number", type(bad).__name__)
        assert_same_error(lambda bad=bad: clip_weights_([weight], 0.0, bad), TypeError, *words)
    assert_same_error(lambda: clip_weights_([weight], -0.1), ValueError, "low", "-0.1", "at least 0")
    assert_same_error(lambda: clip_weights_([weight], 0.2, 0.1), ValueError, "low", "high", "0.2", "0.1")
    assert_same_error(lambda: clip_weights_([weight], torch.nan), ValueError, "low", "nan")
    assert_same_error(lambda: clip_weights_([weight], torch.nan, 1.0), ValueError, "low", "nan")
    assert_same_error(lambda: clip_weights_([weight], 0.0, torch.nan), ValueError, "high", "nan")
    assert weight.eq(5).all() and weight._version == 0


@pytest.mark.parametrize(("nothing", "error"), [([], ValueError), ((), ValueError), (nn.ReLU(), ValueError)])
def test_nothing_to_clip_is_refused(nothing: Any, error: type[Exception]) -> None:
    assert_same_error(lambda: clip_weights_(nothing, 0.01), error, "params_or_module", "at least one")


@pytest.mark.parametrize("wrong", [None, 3.0, "weights"])
def test_what_is_no_module_and_no_tensors_is_refused(wrong: Any) -> None:
    assert_same_error(lambda: clip_weights_(wrong, 0.01), TypeError, "params", type(wrong).__name__)


EXCLUDED = [
    (nn.BatchNorm2d, {"body.1.weight", "body.1.bias"}),
    ((nn.BatchNorm2d, nn.LayerNorm), {"body.1.weight", "body.1.bias", "body.3.weight", "body.3.bias"}),
    ([nn.modules.batchnorm._NormBase], {"body.1.weight", "body.1.bias"}),
    ("head", {"head.weight", "head.bias"}),  # and not "header"
    ("head.bias", {"head.bias"}),
    (("scale", "header.weight"), {"scale", "header.weight"}),
    (nn.Sequential, {f"body.{i}.{name}" for i in range(4) for name in ("weight", "bias")}),  # with all below it
    (("body", nn.BatchNorm2d), {f"body.{i}.{name}" for i in range(4) for name in ("weight", "bias")}),
    ("tied", {"body.2.weight", "tied.bias"}),  # a shared weight is left alone under either name
    ({"head.bias", nn.LayerNorm}, {"head.bias", "body.3.weight", "body.3.bias"}),
    ((), set()),
]


@pytest.mark.parametrize(("exclude", "kept"), EXCLUDED)
def test_exclude(backend: str, exclude: Any, kept: set[str]) -> None:
    critic = Critic()
    before = {name: param.detach().clone() for name, param in critic.named_parameters()}
    clip_weights_(critic, 0.01, exclude=exclude)
    for name, param in critic.named_parameters():
        expected = before[name] if name in kept else before[name].clone().clamp_(-0.01, 0.01)
        assert not torch.equal(before[name], before[name].clone().clamp_(-0.01, 0.01))
        assert_same_bits(param.detach(), expected, name)


def test_exclude_is_refused_where_it_cannot_be_told() -> None:
    critic = Critic()
    for tensors in (list(critic.parameters()), critic.scale, critic.parameters()):
        call = lambda t=tensors: clip_weights_(t, 0.01, exclude=nn.BatchNorm2d)  # noqa: E731
        assert_same_error(call, TypeError, "exclude", "module")
    assert_same_error(lambda: clip_weights_(critic, 0.01, exclude="tail"), ValueError, "exclude", "'tail'")
    assert_same_error(lambda: clip_weights_(critic, 0.01, exclude=("head", "hea")), ValueError, "exclude", "'hea'")
    assert_same_error(lambda: clip_weights_(critic, 0.01, exclude=(int,)), TypeError, "exclude", "int")
    assert_same_error(lambda: clip_weights_(critic, 0.01, exclude=critic.head), TypeError, "exclude")
    assert_same_error(lambda: clip_weights_(critic, 0.01, exclude=5), TypeError, "exclude", "int|5")
    assert_same_error(lambda: clip_weights_(nn.Linear(2, 2), 0.01, exclude=nn.Linear), ValueError, "at least one")
    assert largest_weight(critic.parameters()) > 1


def test_exclude_given_as_an_iterator_is_not_dropped(backend: str) -> None:
    critic = Critic()
    before = critic.body[1].weight.detach().clone()
    try:
        clip_weights_(critic, 0.01, exclude=(entry for entry in [nn.BatchNorm2d]))
    except TypeError as error:
        assert "exclude" in str(error)
    assert torch.equal(critic.body[1].weight, before)


def test_same_bits_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        torch.manual_seed(1)
        params = [torch.randn(200_003), torch.randn(333, 301).t(), torch.randn(7), torch.randn(70_001).bfloat16()]
        expected = [param.clone().clamp_(-0.3, 0.4) for param in params]
        clip_weights_(params, -0.3, 0.4)
        for param, clipped in zip(params, expected, strict=True):
            assert_same_bits(param, clipped)
        results.append(params)
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


def test_opcheck(native: None) -> None:
    params = [torch.randn(3, 2, requires_grad=True), torch.randn(4, 6, dtype=torch.float16)[:, ::2], torch.randn(())]
    results = torch.library.opcheck(torch.ops.wgan_kernels.clip_weights_.default, (params, -0.1, 0.2))
    assert set(results.values()) == {"SUCCESS"} and len(results) == 4


@pytest.mark.parametrize("no_grad", [True, False])
def test_the_mutation_is_visible_inside_and_after_a_compiled_step(backend: str, no_grad: bool) -> None:
    critic = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 1))

    def step(x: Tensor) -> tuple[Tensor, Tensor]:
        if no_grad:
            with torch.no_grad():
                clip_weights_(critic, 0.01, exclude="1.bias")
        else:
            clip_weights_(critic, 0.01, exclude="1.bias")
        return critic[0].weight.abs().max(), x.sum()

    expected = {name: p.detach().clone() for name, p in critic.named_parameters()}
    expected = {name: p if name == "1.bias" else p.clamp_(-0.01, 0.01) for name, p in expected.items()}
    versions = [param._version for param in critic[0].parameters()]
    inside, _ = torch.compile(step, fullgraph=True, backend="aot_eager")(torch.ones(2, 3))
    assert inside.item() == pytest.approx(0.01)
    for name, param in critic.named_parameters():
        assert_same_bits(param.detach(), expected[name], name)
    assert all(param._version > before for param, before in zip(critic[0].parameters(), versions, strict=True))


def test_compiled_training_step_equals_the_eager_one(native: None) -> None:
    def train(compiled: bool) -> list[Tensor]:
        torch.manual_seed(4)
        critic = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))

        def step(x: Tensor) -> Tensor:
            loss = critic(x).mean()
            with torch.no_grad():
                clip_weights_(critic, 0.05)
            return loss

        for seed in range(2):
            x = torch.randn(5, 3, generator=torch.Generator().manual_seed(seed))
            torch.compile(step, fullgraph=True)(x) if compiled else step(x)
        return [param.detach() for param in critic.parameters()]

    for ours, eager in zip(train(True), train(False), strict=True):
        assert_same_bits(ours, eager)


def test_fake_tensors_are_accepted(native: None) -> None:
    with torch._subclasses.FakeTensorMode():
        fake = [torch.randn(3, 2), torch.randn(4, dtype=torch.float64)]
        assert clip_weights_(fake, 0.01) is None
        assert all(param._version > 0 for param in fake)


def test_meta_tensors_are_served_by_the_reference() -> None:
    weight = torch.ones(3, device="meta")
    assert clip_weights_([weight], 0.01) is None
    if "native" in available_backends():
        with wk.use_backend("native"), pytest.raises(RuntimeError, match="native.*meta"):
            clip_weights_([weight], 0.01)


def test_tensors_made_under_inference_mode_are_clipped_anywhere(backend: str) -> None:
    with torch.inference_mode():
        weight = torch.full((3,), 5.0)
    clip_weights_([weight, other := torch.full((2,), -5.0)], 0.25)
    assert weight.tolist() == [0.25] * 3 and other.tolist() == [-0.25] * 2 and other._version == 1
