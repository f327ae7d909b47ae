"""The operators of group_norm: their derivatives to the third, and what traces, compiles and records them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import LAYOUTS, assert_same_error, compile_once, form, leaf, samples
from test_group_norm import EPS, derivatives, ours, params_for, plain
from tolerances import assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops.group_norm import layer_norm
from wgan_kernels.reference import group_norm as reference


def small_inputs(layer: bool) -> tuple[Tensor, Tensor, Tensor]:
    shape = (2, 3, 2, 2) if layer else (2, 4, 2, 2)
    return leaf(samples(shape, torch.float64)), *map(leaf, params_for(shape, 2 if layer else 0, torch.float64))


@pytest.mark.parametrize("layer", [True, False])
def test_gradcheck_and_gradgradcheck(backend: str, layer: bool) -> None:
    function = lambda *each: ours(*each, 1 if layer else 2, 2 if layer else 0)  # noqa: E731
    x, weight, bias = small_inputs(layer)
    for inputs in ((x, weight, bias), (x, weight, None), (x, None, bias), (x, None, None)):
        assert gradcheck(function, inputs) and gradgradcheck(function, inputs)
    for inputs in ((x.detach(), weight, bias), (x, weight.detach(), bias), (x, weight, bias.detach())):
        assert gradcheck(function, inputs) and gradgradcheck(function, inputs)
    x = leaf(x.contiguous(memory_format=torch.channels_last))
    assert gradcheck(function, (x, weight, bias)) and gradgradcheck(function, (x, weight, bias))


@pytest.mark.parametrize("layer", [True, False])
def test_gradcheck_of_the_registered_operators(native: None, layer: bool) -> None:
    operators, (x, weight, bias) = torch.ops.wgan_kernels, small_inputs(layer)
    settings = (1, 2) if layer else (2, 0)

    def forward(*inputs: Tensor) -> Tensor:
        return operators.group_norm.default(*inputs, *settings, EPS)[0]

    def backward(grad_y: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, ...]:
        _, *statistics = operators.group_norm.default(x.detach(), weight.detach(), bias.detach(), *settings, EPS)
        return operators.group_norm_backward.default(grad_y, x, weight, bias.detach(), *statistics, *settings, True)

    assert gradcheck(forward, (x, weight, bias)) and gradgradcheck(forward, (x, weight, bias))
    assert gradcheck(backward, (leaf(samples(tuple(x.shape), torch.float64, seed=4)), x, weight))


def test_opcheck(native: None) -> None:
    operators = torch.ops.wgan_kernels
    for dtype, layout in [(torch.float32, "permuted"), (torch.bfloat16, "columns"), (torch.float64, "contiguous")]:
        x, grad_y, u = (samples((3, 4, 5, 5), dtype, layout if k == 0 else "contiguous", k) for k in range(3))
        wide = torch.promote_types(dtype, torch.float32)
        weight, bias = params_for((3, 4, 5, 5), 0, wide)
        y, *statistics = operators.group_norm.default(x, weight, bias, 2, 0, EPS)
        for operator, arguments in [
            (operators.group_norm, (leaf(x), leaf(weight), leaf(bias), 2, 0, EPS)),
            (operators.group_norm, (leaf(x), None, None, 2, 0, EPS)),
            (operators.group_norm_backward, (leaf(grad_y), leaf(x), leaf(weight), bias, *statistics, 2, 0, True)),
            (operators.group_norm_backward, (leaf(grad_y), leaf(x), None, None, *statistics, 2, 0, False)),
            (
                operators.group_norm_double_backward,
                (u, weight, None, grad_y, x, weight, *statistics, 2, 0, True, True),
            ),
            (
                operators.group_norm_double_backward,
                (u, None, None, grad_y, x, None, *statistics, 2, 0, False, False),
            ),
        ]:
            results = torch.library.opcheck(operator.default, arguments)
            assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_third_derivative_raises(native: None) -> None:
    operator = lambda x, w, b: torch.ops.wgan_kernels.group_norm.default(x, w, b, 2, 0, EPS)[0]  # noqa: E731
    for function in (lambda *each: ours(*each, 2, 0), operator):
        x, weight, bias = small_inputs(False)
        (first,) = torch.autograd.grad(function(x, weight, bias).square().sum(), x, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="third derivatives of group_norm are not supported"):
            torch.autograd.grad(second.sum(), x)


class Calls(torch.utils._python_dispatch.TorchDispatchMode):
    """Which operators ran, with their last argument."""

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if "group_norm" in str(function):
            self.seen.append((function._schema.name.partition("::")[2], args[-1]))
        return function(*args, **(kwargs or {}))

    def __enter__(self) -> Any:
        self.seen: list[tuple[str, Any]] = []
        return super().__enter__()


def test_gradients_that_nobody_asks_for_are_not_computed(native: None) -> None:
    x, weight, bias = small_inputs(False)
    y = ours(x, weight, bias, 2, 0)
    for create_graph in (False, True):
        for wanted, needs_params in ((x, False), (weight, True), (bias, True), ((x, weight), True)):
            with Calls() as calls:
                torch.autograd.grad(y.sum(), wanted, create_graph=create_graph, retain_graph=True)
            assert calls.seen == [("group_norm_backward", needs_params)]
    with Calls() as calls:
        y.sum().backward()
    assert calls.seen == [("group_norm_backward", True)] and weight.grad is not None and bias.grad is not None


def test_writing_into_the_input_before_backward_raises(native: None) -> None:
    source = leaf(samples((3, 4, 5), torch.float32))
    x = source * 1
    y = ours(x, None, None, 2, 0)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.sum().backward()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_strides_of_real_ones(native: None, layout: str) -> None:
    for shape, groups, layer_dims in (((4, 6, 5, 5), 2, 0), ((1, 6, 5, 5), 6, 0), ((4, 6), 1, 1), ((4, 6, 5, 5), 1, 3)):
        inputs = [samples(shape, torch.bfloat16, layout), *params_for(shape, layer_dims, torch.bfloat16)]
        grad_y = samples(shape, torch.bfloat16, "permuted")
        along = [samples(tuple(t.shape), torch.bfloat16, seed=3) for t in inputs]
        function = lambda *each, g=groups, d=layer_dims: ours(*each, g, d)  # noqa: E731
        real = derivatives(function, inputs, grad_y, along)
        with torch._subclasses.FakeTensorMode() as mode:
            fakes = [[mode.from_tensor(t) for t in each] for each in (inputs, [grad_y], along)]
            fake = derivatives(function, fakes[0], fakes[1][0], fakes[2])
        assert [form(x) for x in fake] == [form(x) for x in real], (shape, groups)


@pytest.mark.parametrize("name", ["group", "layer"])
def test_memory_format_is_kept(native: None, name: str) -> None:
    x = samples((3, 4, 5, 5), torch.float32, "permuted")
    groups, layer_dims = (2, 0) if name == "group" else (1, 3)
    inputs = [x, *params_for((3, 4, 5, 5), layer_dims, torch.float32)]
    results = derivatives(lambda *each: ours(*each, groups, layer_dims), inputs, x, [t.clone() for t in inputs])
    for at in (0, 1, 4, 5):
        assert results[at].stride() == x.stride()


def test_compiled_equals_eager(backend: str) -> None:
    for groups, layer_dims in ((2, 0), (1, 3)):
        function = lambda x, w, b: ours(x * 2, w, b, groups, layer_dims).exp()  # noqa: B023, E731
        compiled = compile_once(function, backend)
        for batch in (3, 5):
            shape = (batch, 4, 3, 2)
            inputs = [leaf(t) for t in (samples(shape, torch.float32), *params_for(shape, layer_dims, torch.float32))]
            values = [each(*inputs) for each in (compiled, function)]
            assert_same_by_another_route(*values)
            grads = [torch.autograd.grad(value.sum(), inputs) for value in values]
            for a, b in zip(*grads):
                assert_same_by_another_route(a, b)


def test_torch_func_transforms(backend: str) -> None:
    x, weight, bias = (t.detach() for t in small_inputs(False))
    loss = lambda x: ours(x, weight, bias, 2, 0).square().sum()  # noqa: E731
    at = leaf(x)
    (expected,) = torch.autograd.grad(plain(at, weight, bias, 2, 0).square().sum(), at)
    assert_same_by_another_route(torch.func.grad(loss)(x), expected)
    batches = torch.stack([x, 2 * x])
    assert_same_by_another_route(torch.func.vmap(torch.func.grad(loss))(batches)[0], expected)


def test_nothing_is_recorded_where_nothing_is_asked(backend: str) -> None:
    x = leaf(samples((4, 3), torch.float32))
    assert ours(x, None, None, 1, 1).requires_grad and not ours(x.detach(), None, None, 1, 1).requires_grad
    with torch.no_grad():
        assert not ours(x, None, None, 1, 1).requires_grad
    with torch.inference_mode():
        assert ours(x, None, None, 1, 1).is_inference()


@pytest.mark.parametrize("layer", [True, False])
def test_the_formulas_of_the_reference_are_its_derivatives(layer: bool) -> None:
    settings = (1, 2) if layer else (2, 0)
    x, weight, bias = (t.detach() for t in small_inputs(layer))
    grad_y = samples(tuple(x.shape), torch.float64, seed=3)
    along = [samples(tuple(t.shape), torch.float64, seed=4 + k) for k, t in enumerate((x, weight, bias))]

    def value(*inputs: Tensor) -> Tensor:
        return reference.group_norm(*inputs, *settings, EPS)[0]

    expected = derivatives(value, [x, weight, bias], grad_y, along)
    _, *statistics = reference.group_norm(x, weight, bias, *settings, EPS)
    first = reference.group_norm_backward(grad_y, x, weight, bias, *statistics, *settings, True)
    args = *along, grad_y, x, weight, *statistics, *settings, True, True
    second = reference.group_norm_double_backward(*args)
    for actual, wanted in zip((*first, *second), expected[1:], strict=True):
        assert_same_by_another_route(actual, wanted)


@pytest.mark.parametrize("normalized_shape", [(4,), (2, 3), (1, 2, 6, 3)])
def test_errors(normalized_shape: tuple[int, ...]) -> None:
    words = "x must end in normalized_shape, .* got shape"
    assert_same_error(lambda: layer_norm(torch.ones(2, 6, 3), normalized_shape), ValueError, words)


def test_bad_arguments_of_the_operators(native: None) -> None:
    operator, x = torch.ops.wgan_kernels.group_norm.default, torch.ones(2, 6, 3)
    for args, words in [
        ((x, None, None, 4, 0, EPS), "groups do not divide the channels"),
        ((x, torch.ones(5), None, 2, 0, EPS), "weight or bias does not fit x"),
        ((torch.ones(6), None, None, 2, 0, EPS), "x has too few dimensions"),
    ]:
        with pytest.raises(RuntimeError, match=words):
            operator(*args)
