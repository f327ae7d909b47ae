"""bias_leaky_relu: clamp(gain * leaky_relu(x + bias)), its derivatives and theirs, and the layers made of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    LAYOUTS,
    NARROW,
    assert_same_bits,
    assert_same_error,
    compile_once,
    each_backend,
    form,
    lay_out,
    leaf,
    samples,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_as_good_as_torch, assert_same_by_another_route, largest
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.nn import functional

from wgan_kernels import use_backend
from wgan_kernels.ops.bias_leaky_relu import bias_leaky_relu

# negative_slope, gain and clamp.
SETTINGS = [(0.2, 1.0, None), (0.01, 2.0**0.5, 0.7), (0.0, 1.0, None), (1.5, 0.25, 0.3)]
# Elements of a channel are rows from 64 on, in blocks of 16384, and else columns of 256 at least, 1024 at most.
SHAPES = [
    (0, 3),
    (3, 0, 2),
    (2, 3, 0),
    (1, 1),
    (7, 5),
    (2, 3, 5, 7),
    (3, 4, 4, 4),
    (2, 3, 8, 8),
    (3, 131),
    (2, 2, 65, 3),
    (67, 300, 1),
    (1, 1, 16385),
]
LARGE = [(2, 3, 33_003), (300, 1030)]


def plain(x: Tensor, bias: Tensor | None, negative_slope: float, gain: float, clamp: float | None) -> Tensor:
    """As people write it, in the dtype of x."""
    if bias is not None:
        x = x + bias.view(1, -1, *[1] * (x.dim() - 2))
    y = functional.leaky_relu(x, negative_slope) * gain
    return y if clamp is None else y.clamp(-clamp, clamp)


def slopes_of(y: Tensor, negative_slope: float) -> Tensor:
    return torch.where(y > 0, torch.ones_like(y), torch.full_like(y, negative_slope))


def off_the_kinks(x: Tensor, bias: Tensor | None, settings: tuple[float, float, float | None]) -> Tensor:
    """x, moved where rounding could decide on which side of 0 or of a bound the result is."""
    negative_slope, gain, clamp = settings
    room = 32 * torch.finfo(x.dtype).eps
    add = 0.0 if bias is None else bias.double().view(1, -1, *[1] * (x.dim() - 2))
    z = x.double() + add
    kinks = [0.0] if clamp is None else [0.0, clamp / gain, -clamp / (gain * max(negative_slope, 1e-3))]
    for kink in kinks:
        size = max(abs(kink), 1.0)
        z = torch.where((z - kink).abs() < room * size, kink + 2 * room * size * (1 + 0 * z), z)
    return (z - add).to(x.dtype)


def derivatives(
    function: Callable[..., Tensor], x: Tensor, bias: Tensor | None, grad_y: Tensor, along: list[Tensor]
) -> list[Tensor]:
    """The value; its gradients g by the inputs for an outer gradient; that of <g, along> by it."""
    inputs = [leaf(t) for t in (x, bias) if t is not None]
    grad_y = leaf(grad_y)
    y = function(*inputs)
    first = torch.autograd.grad(y, inputs, grad_y, create_graph=True)
    (second,) = torch.autograd.grad(first, grad_y, along[: len(first)])
    return [t.detach() for t in (y, *first, second)]


def assert_parity(
    x: Tensor, bias: Tensor | None, settings: tuple[float, float, float | None], where: str, layout: str = "contiguous"
) -> None:
    x = lay_out(off_the_kinks(x, bias, settings), layout) if x.numel() else x
    grad_y, u = (samples(tuple(x.shape), x.dtype, seed=seed) for seed in (12, 13))
    along = [u] if bias is None else [u, samples(tuple(bias.shape), bias.dtype, seed=14)]

    def of(function: Callable[..., Tensor], wide: bool) -> list[Tensor]:
        given = [None if t is None else t.double() if wide else t for t in (x, bias, grad_y, *along)]
        call = lambda x, bias=None: function(x, bias, *settings)  # noqa: E731
        return derivatives(call, given[0], given[1], given[2], given[3:])

    ours, theirs, exact = of(bias_leaky_relu, False), of(plain, False), of(plain, True)
    assert ours[0].dtype == x.dtype
    names = ["y", "grad_x", "grad_bias", "grad_grad_y"] if bias is not None else ["y", "grad_x", "grad_grad_y"]
    for name, *each in zip(names, ours, theirs, exact, strict=True):
        terms = (x.numel() / max(x.shape[1], 1)) ** 0.5 * largest(grad_y) if name == "grad_bias" else 0.0
        assert_as_good_as_torch(*each, f"{name} of {where}", terms)


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    for k, shape in enumerate([*SHAPES, *(LARGE if layout in ("contiguous", "permuted") else [])]):
        bias = None if k % 3 == 2 else samples(shape[1:2], dtype, seed=2)
        settings = SETTINGS[k % len(SETTINGS)]
        where = f"{shape}, {layout}, {settings}, {'no ' if bias is None else ''}bias"
        assert_parity(samples(shape, dtype, seed=1), bias, settings, where, layout)


@given(
    shape=st.lists(st.integers(0, 20), min_size=2, max_size=4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    settings=st.sampled_from(SETTINGS),
    has_bias=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_drawn_shapes(
    shape: list[int], dtype: torch.dtype, layout: str, settings: Any, has_bias: bool, seed: int
) -> None:
    for name in each_backend():
        bias = samples(tuple(shape[1:2]), dtype, seed=seed + 1) if has_bias else None
        assert_parity(samples(tuple(shape), dtype, seed=seed), bias, settings, name, layout)


def test_known_answer(backend: str) -> None:
    x, bias = leaf(torch.tensor([[[1.0, -2.0]], [[3.0, -0.5]]])), leaf(torch.tensor([0.5]))
    y = bias_leaky_relu(x, bias, 0.1, 2.0, 4.0)
    expected = torch.tensor([[[3.0, -0.3]], [[4.0, 0.0]]])
    assert torch.equal(y, expected)
    grad_y = leaf(torch.tensor([[[1.0, 10.0]], [[100.0, 1000.0]]]))
    grad_x, grad_bias = torch.autograd.grad(y, (x, bias), grad_y, create_graph=True)
    assert torch.allclose(grad_x, torch.tensor([[[2.0, 2.0]], [[0.0, 200.0]]])) and grad_bias.item() == 204
    (second,) = torch.autograd.grad((grad_x.sum() + 2 * grad_bias.sum()), grad_y)
    assert torch.allclose(second, 3 * torch.tensor([[[2.0, 0.2]], [[0.0, 0.2]]]))


def test_without_channels(backend: str) -> None:
    for shape in ((), (5,)):
        x = leaf(samples(shape, torch.float64))
        y = bias_leaky_relu(x, negative_slope=0.3)
        assert torch.equal(y, functional.leaky_relu(x, 0.3))
        assert torch.equal(torch.autograd.grad(y.sum(), x)[0], slopes_of(y, 0.3))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("clamp", [None, 0.25])
@pytest.mark.parametrize("negative_slope", [0.0, 0.5])
def test_the_kinks_are_torchs(backend: str, dtype: torch.dtype, negative_slope: float, clamp: float | None) -> None:
    """At 0 the slope below; NaN and infinity as torch has them. Only at a bound itself torch passes gradients."""
    numbers = [0.0, -0.0, 0.125, -0.125, 2.0, -2.0, torch.inf, -torch.inf, torch.nan]
    x = leaf(torch.tensor(numbers, dtype=dtype).view(1, 1, -1))
    zero = leaf(torch.zeros(1, dtype=dtype))
    for bias in (zero, None):
        y, expected = (f(x, bias, negative_slope, 1.0, clamp) for f in (bias_leaky_relu, plain))
        assert torch.equal(y.nan_to_num(7), expected.nan_to_num(7))
        grads = [torch.autograd.grad(each, x, torch.full_like(each, 3.0))[0] for each in (y, expected)]
        assert_same_bits(*grads)
        infinite = torch.full_like(y, torch.inf)
        assert_same_bits(
            *[torch.autograd.grad(f(x, bias, 0.5, 1.0, clamp), x, infinite)[0] for f in (bias_leaky_relu, plain)]
        )
    if clamp is not None:
        x = leaf(torch.tensor([[[0.25, -0.25 / 0.5, 0.5]]], dtype=dtype))
        assert torch.autograd.grad(bias_leaky_relu(x, zero, 0.5, 1.0, 0.25).sum(), x)[0].tolist() == [[[0, 0, 0]]]


@pytest.mark.parametrize("dtype", NARROW)
def test_a_float32_bias_beside_half_floats(backend: str, dtype: torch.dtype) -> None:
    x, bias = leaf(samples((5, 4, 3), dtype)), leaf(samples((4,), torch.float32, seed=1))
    y = bias_leaky_relu(x, bias, 0.2)
    grads = torch.autograd.grad(y, (x, bias), torch.ones_like(y), create_graph=True)
    assert y.dtype == dtype and [grad.dtype for grad in grads] == [dtype, torch.float32]
    exact = plain(x.double(), bias.double(), 0.2, 1.0, None)
    assert_as_good_as_torch(y, exact.to(dtype), exact)
    slopes = slopes_of(y.double(), 0.2)
    assert torch.allclose(grads[1].double(), slopes.sum((0, 2)), rtol=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_bounds_that_the_dtype_cannot_hold_are_none(backend: str, dtype: torch.dtype) -> None:
    x = samples((3, 4), dtype)
    assert torch.equal(bias_leaky_relu(x, clamp=1e308), bias_leaky_relu(x))


def test_gradients_reach_only_what_asks_for_them(backend: str) -> None:
    for asked in ([0], [1], [0, 1]):
        x, bias = samples((4, 3, 2), torch.float32), samples((3,), torch.float32, seed=1)
        for index in asked:
            (x, bias)[index].requires_grad_()
        y = bias_leaky_relu(x, bias, 0.2)
        y.sum().backward()
        slopes = slopes_of(y.detach(), 0.2)
        for index, (value, expected) in enumerate(((x, slopes), (bias, slopes.sum((0, 2))))):
            assert (value.grad is not None) == (index in asked)
            if index in asked:
                assert_same_by_another_route(value.grad, expected)
    with torch.no_grad():
        assert not bias_leaky_relu(x, bias).requires_grad
    with torch.inference_mode():
        assert bias_leaky_relu(x, bias).is_inference()


def test_second_derivatives_along_one_gradient_alone(backend: str) -> None:
    """And none by x or bias, of which the first are constant."""
    x, bias = leaf(samples((4, 3, 2), torch.float64)), leaf(samples((3,), torch.float64, seed=1))
    for which in (0, 1):
        grad_y = leaf(samples((4, 3, 2), torch.float64, seed=2))
        y = bias_leaky_relu(x, bias, 0.2)
        grad = torch.autograd.grad(y, (x, bias), grad_y, create_graph=True)[which]
        found = torch.autograd.grad(grad, (grad_y, x, bias), torch.ones_like(grad), allow_unused=True)
        assert torch.equal(found[0], slopes_of(y, 0.2))
        assert found[1] is None or not found[1].any()
        assert found[2] is None or not found[2].any()


def test_a_gradient_along_constants_may_be_descended_too(backend: str) -> None:
    """As torch has it: what a gradient penalty of a rectifier alone gives to the weights is nothing, and no error."""
    x, bias = leaf(samples((4, 3, 2), torch.float64)), leaf(samples((3,), torch.float64, seed=1))
    (grad,) = torch.autograd.grad(bias_leaky_relu(x, bias, 0.2).sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert bias.grad is None or not bias.grad.any()
    v = leaf(samples((4, 3, 2), torch.float64, seed=2))
    (grad,) = torch.autograd.grad(bias_leaky_relu(x, bias, 0.2), x, v, create_graph=True)
    (slopes,) = torch.autograd.grad(grad.sum(), v, create_graph=True)
    slopes.square().sum().backward()
    assert v.grad is None or not v.grad.any()


def test_every_parameter_hears_of_a_second_backward_pass(backend: str) -> None:
    """Even of no gradient: DistributedDataParallel waits for each one's hook."""
    heard = []
    x, bias = leaf(samples((4, 3, 2), torch.float64)), leaf(samples((3,), torch.float64, seed=1))
    nodes = [leaf.view_as(leaf).grad_fn.next_functions[0][0] for leaf in (x, bias)]
    hooks = [node.register_hook(lambda *_, name=name: heard.append(name)) for name, node in zip("xb", nodes)]
    grad_y = leaf(samples((4, 3, 2), torch.float64, seed=2))
    (grad,) = torch.autograd.grad(bias_leaky_relu(x, bias, 0.2), x, grad_y, create_graph=True)
    grad.square().sum().backward()
    assert sorted(heard) == ["b", "x"] and len(hooks) == 2


def test_only_the_result_is_kept(native: None) -> None:
    x, bias = leaf(samples((4, 3), torch.float32)), leaf(samples((3,), torch.float32))
    y = bias_leaky_relu(x, bias)
    x.detach().mul_(-1)
    assert [saved.data_ptr() for saved in y.grad_fn.saved_tensors] == [y.data_ptr()]
    y.detach().mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


def test_same_bits_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    for shape in ((8, 3, 33_003), (3000, 70), (3, 5000, 7)):
        x, bias, grad_y = (samples(s, torch.float32, seed=k) for k, s in enumerate((shape, shape[1:2], shape)))
        results = []
        for threads in one_and_two_threads * 2:
            torch.set_num_threads(threads)
            results.append(derivatives(bias_leaky_relu, x, bias, grad_y, [grad_y, bias]))
        for other in results[1:]:
            for a, b in zip(other, results[0], strict=True):
                assert_same_bits(a, b)


def test_sums_run_in_float64(native: None) -> None:
    """In float32 the small ones would vanish beside the large one."""
    for shape in ((1, 1, 40_000), (40_000, 1)):
        grad_y = torch.full(shape, 1e-4)
        grad_y.view(-1)[0] = 1e4
        x, bias = torch.ones(shape), leaf(torch.zeros(1))
        (found,) = torch.autograd.grad(bias_leaky_relu(x, bias), bias, grad_y)
        assert found.item() == grad_y.double().sum().float().item()


def double_inputs(layout: str) -> list[Tensor]:
    return [leaf(samples((3, 2, 3, 2), torch.float64, layout, 1)), leaf(samples((2,), torch.float64, seed=2))]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradcheck_and_gradgradcheck(backend: str, settings: tuple[float, float, float | None]) -> None:
    for layout in ("contiguous", "permuted"):
        function = lambda x, bias: bias_leaky_relu(x, bias, *settings)  # noqa: E731
        assert gradcheck(function, double_inputs(layout)) and gradgradcheck(function, double_inputs(layout))
    assert gradgradcheck(lambda x: bias_leaky_relu(x, None, *settings), double_inputs("contiguous")[:1])


def test_gradcheck_of_the_derivatives_by_the_registered_operators(native: None) -> None:
    """Which is the third derivative, too: of the second by what it is linear in."""
    operators = torch.ops.wgan_kernels
    x, bias = double_inputs("contiguous")
    y = operators.bias_leaky_relu(x, bias, 0.2, 1.0, 0.7).detach()
    settings = 0.2, 1.0, 0.7
    first = lambda g: operators.bias_leaky_relu_backward(g, y, *settings, True)  # noqa: E731
    second = lambda u, p: operators.bias_leaky_relu_double_backward(u, p, y, *settings)  # noqa: E731
    g = leaf(samples((3, 2, 3, 2), torch.float64, seed=3))
    assert gradcheck(first, g) and gradgradcheck(first, g)
    assert gradcheck(second, (g, bias)) and gradgradcheck(second, (g, bias))


def test_opcheck(native: None) -> None:
    operators, settings = torch.ops.wgan_kernels, (0.2, 1.4, 0.7)
    for dtype, layout in ((torch.float32, "permuted"), (torch.bfloat16, "rows")):
        x, bias = leaf(samples((3, 4, 5, 5), dtype, layout)), leaf(samples((4,), dtype, seed=1))
        y = operators.bias_leaky_relu(x, bias, *settings).detach()
        wide = leaf(bias.detach().float())
        calls = {
            "bias_leaky_relu": [(x, bias, *settings), (x, None, 0.0, 1.0, None)],
            "bias_leaky_relu_backward": [(x, y, *settings, True), (x, y, *settings, False)],
            "bias_leaky_relu_double_backward": [(x, wide, y, *settings), (x, None, y, *settings)],
        }
        for name, each in calls.items():
            for arguments in each:
                results = torch.library.opcheck(getattr(operators, name).default, arguments)
                assert set(results.values()) == {"SUCCESS"} and len(results) == 4, name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_strides_of_real_ones(backend: str, layout: str) -> None:
    for shape in ((4, 3, 5, 5), (1, 3, 5, 5), (4, 6), (1, 1), (2, 3, 4)):
        x, bias = samples(shape, torch.float32, layout), samples(shape[1:2], torch.float32)
        y = bias_leaky_relu(x, bias, clamp=1.0)
        with torch._subclasses.FakeTensorMode() as mode:
            fake_y = bias_leaky_relu(*map(mode.from_tensor, (x, bias)), clamp=1.0)
        assert form(fake_y) == form(y), shape


def test_channels_last_stays(backend: str) -> None:
    x = samples((2, 3, 4, 5), torch.float32).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = bias_leaky_relu(x, samples((3,), torch.float32))
    (grad,) = torch.autograd.grad(y, x, torch.ones(2, 3, 4, 5))
    assert y.is_contiguous(memory_format=torch.channels_last) and grad.stride() == x.stride()


def test_compiled_equals_eager(backend: str) -> None:
    def function(x: Tensor, bias: Tensor) -> Tensor:
        return bias_leaky_relu(x * 2, bias, 0.2, 1.4, 3.0).square().sum()

    compiled = compile_once(function, backend)
    for batch in (5, 6):  # the second makes the batch size a symbol
        inputs = [samples((batch, 3, 2), torch.float32, seed=batch), samples((3,), torch.float32)]
        ours, theirs = [leaf(x) for x in inputs], [leaf(x) for x in inputs]
        value, expected = compiled(*ours), function(*theirs)
        assert_same_by_another_route(value, expected)
        grads = torch.autograd.grad(value, ours), torch.autograd.grad(expected, theirs)
        for a, b in zip(*grads, strict=True):
            assert_same_by_another_route(a, b)


def test_torch_func_transforms(backend: str) -> None:
    inputs = samples((4, 3), torch.float64, seed=1), samples((3,), torch.float64, seed=2)
    ours, theirs = (lambda x, b, f=f: f(x, b, 0.2, 1.4, 1.0).square().sum() for f in (bias_leaky_relu, plain))
    for index in range(2):
        found, expected = (torch.func.grad(f, argnums=index)(*inputs) for f in (ours, theirs))
        assert_same_by_another_route(found, expected)
        found, expected = (
            torch.func.jacrev(torch.func.grad(f, argnums=index), argnums=index)(*inputs) for f in (ours, theirs)
        )
        assert_same_by_another_route(found, expected)
    batches = [torch.stack([x, x + 1, 2 * x]) for x in inputs]
    found, expected = (
        torch.func.vmap(lambda x, b, f=f: f(x, b, 0.2, 1.4, 1.0))(*batches) for f in (bias_leaky_relu, plain)
    )
    assert_same_by_another_route(found, expected)


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"x": [1.0]}, TypeError, ["x", "Tensor", "list"]),
    ({"x": torch.ones(2, 3, dtype=torch.int32)}, TypeError, ["x", "float64", "int32"]),
    ({"x": torch.ones(2, 3).to_sparse()}, TypeError, ["x", "strided", "sparse"]),
    ({"bias": 0.5}, TypeError, ["bias", "Tensor", "float"]),
    ({"bias": torch.ones(2)}, ValueError, ["bias", r"\(3,\)", r"\(2,\)"]),
    ({"bias": torch.ones(1, 3)}, ValueError, ["bias", r"\(3,\)", r"\(1, 3\)"]),
    ({"x": torch.ones(3)}, ValueError, ["bias", "None", r"\(3,\)"]),
    ({"bias": torch.ones(3).double()}, TypeError, ["bias", "float32", "float64"]),
    ({"x": torch.ones(2, 3).double()}, TypeError, ["bias", "float64", "float32"]),
    ({"bias": torch.ones(3, device="meta")}, ValueError, ["bias", "device of x", "meta"]),
    ({"negative_slope": -0.1}, ValueError, ["negative_slope", "at least 0", "-0.1"]),
    ({"negative_slope": torch.nan}, ValueError, ["negative_slope", "nan"]),
    ({"negative_slope": "small"}, TypeError, ["negative_slope", "number", "str"]),
    ({"gain": 0.0}, ValueError, ["gain", "greater than 0", "0.0"]),
    ({"gain": torch.inf}, ValueError, ["gain", "finite", "inf"]),
    ({"clamp": 0}, ValueError, ["clamp", "greater than 0", "0"]),
    ({"clamp": True}, TypeError, ["clamp", "number", "bool"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    call = {"x": torch.ones(2, 3), "bias": torch.zeros(3), **arguments}
    assert_same_error(lambda: bias_leaky_relu(**call), error, *words)


def test_other_back_ends_are_the_reference(native: None) -> None:
    x, bias = samples((5, 3, 4), torch.float64), samples((3,), torch.float64)
    ours = bias_leaky_relu(x, bias, 0.2, 1.4, 1.0)
    with use_backend("reference"):
        assert_same_by_another_route(bias_leaky_relu(x, bias, 0.2, 1.4, 1.0), ours)
