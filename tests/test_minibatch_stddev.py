"""minibatch_stddev: how much the samples of a group differ, its first and its second derivative."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    LAYOUTS,
    assert_same_bits,
    assert_same_error,
    compile_once,
    each_backend,
    form,
    leaf,
    samples,
    value_and_derivatives,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_as_good_as_torch, assert_same_by_another_route, largest
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops.minibatch_stddev import minibatch_stddev

# (shape, samples of a group, blocks of channels): numbers around those of a vector, and of several blocks.
CASES = [
    ((4, 1), 4, 1),
    ((6, 6), 3, 2),
    ((8, 6, 5), 2, 3),
    ((8, 4, 4, 4), 4, 1),
    ((6, 4, 3, 5), 3, 2),
    ((4, 2, 33, 65), 2, 1),
    ((5, 3, 2, 2, 3), None, 1),
    ((3, 2, 7), 100, 1),
    ((4, 3, 5), 1, 1),
]


def formula(x: Tensor, group_size: int | None, num_channels: int) -> Tensor:
    """As StyleGAN2 has it, half-width floats in float32."""
    y = grouped(x, group_size, num_channels).to(torch.promote_types(x.dtype, torch.float32))
    y = y - y.mean(dim=0)
    y = (y.square().mean(dim=0) + 1e-8).sqrt()
    return y.mean(dim=2).to(x.dtype)


def grouped(x: Tensor, group_size: int | None, num_channels: int) -> Tensor:
    size = len(x) if group_size is None else min(group_size, len(x))
    return x.reshape(size, len(x) // size, num_channels, -1)


def largest_terms(x: Tensor, direction: Tensor, outer: Tensor, size: int | None, blocks: int) -> list[float]:
    """The size of what is added up in the value and in each derivative, had everything the same sign."""
    groups, u = grouped(x, size, blocks), grouped(direction, size, blocks).abs().amax(0)
    deviation, most = (groups.var(0, correction=0) + 1e-8).sqrt(), groups.abs().amax(0)
    slope = largest(outer) / (len(groups) * groups.shape[-1]) / deviation
    along = u * (1 + most / deviation)
    return [largest(each) for each in (most, slope * most, slope * along, along)]


def assert_parity(x: Tensor, direction: Tensor, size: int | None, blocks: int, where: str) -> None:
    """Value, first derivative and both second ones, for an outer gradient other than one."""
    outer = samples(tuple(formula(x, size, blocks).shape), x.dtype, seed=11) + 2
    ours = value_and_derivatives(
        lambda x: minibatch_stddev(x, group_size=size, num_channels=blocks), x, outer, direction
    )
    plain = value_and_derivatives(lambda x: formula(x, size, blocks), x, outer, direction)
    exact = value_and_derivatives(lambda x: formula(x, size, blocks), x.double(), outer.double(), direction)
    names = ("value", "first derivative", "second derivative", "second derivative by the outer gradient")
    # In float64 the exact results are rounded as ours are.
    terms = [0.0, 0.0, 0.0, largest(direction.double())]
    if x.dtype == torch.float64:
        terms = largest_terms(x, direction, outer, size, blocks)
    for name, term, *each in zip(names, terms, ours, plain, exact, strict=True):
        assert each[0].dtype == x.dtype
        assert_as_good_as_torch(*each, f"{name} of {where}", term)


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    for shape, size, blocks in CASES:
        x, direction = samples(shape, dtype, layout, 1), samples(shape, dtype, seed=2)
        assert_parity(x, direction, size, blocks, f"{shape}, {size}, {blocks}, {layout}")


@given(
    groups=st.integers(1, 4),
    size=st.integers(1, 6),
    blocks=st.integers(1, 3),
    numbers=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_drawn_shapes(
    groups: int, size: int, blocks: int, numbers: list[int], dtype: torch.dtype, layout: str, seed: int
) -> None:
    shape = (groups * size, blocks * numbers[0], *numbers[1:])
    x, direction = samples(shape, dtype, layout, seed), samples(shape, dtype, seed=seed + 1)
    for name in each_backend():
        assert_parity(x, direction, size, blocks, f"{name}, {shape}, {size}, {blocks}, {layout}, seed {seed}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answer(backend: str, dtype: torch.dtype) -> None:
    """Samples 0 and 2 are one group, 1 and 3 the other."""
    x = torch.tensor([[0.0, 1.0], [5.0, 5.0], [2.0, 5.0], [5.0, 11.0]], dtype=dtype)
    value = minibatch_stddev(x, group_size=2)
    deviations = (torch.tensor([[1.0, 4.0], [0.0, 9.0]], dtype=torch.float64) + 1e-8).sqrt()
    expected = deviations.mean(1, keepdim=True)
    assert_as_good_as_torch(value, expected.to(dtype), expected)
    each = minibatch_stddev(x, group_size=2, num_channels=2)
    assert_as_good_as_torch(each, deviations.to(dtype), deviations)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_samples_have_derivatives_of_zero(backend: str, dtype: torch.dtype) -> None:
    x = torch.full((4, 3, 5), 0.25, dtype=dtype)
    value, first, second, by_value = value_and_derivatives(minibatch_stddev, x, None, torch.ones_like(x))
    expected = formula(x.double(), 4, 1)  # the root of what is added to the variance
    assert_as_good_as_torch(value, expected.to(dtype), expected)
    assert first.eq(0).all() and second.eq(0).all() and by_value.eq(0).all()


def test_samples_far_from_the_origin(backend: str) -> None:
    x = samples((4, 3, 5), torch.float32) * 0.01 + 100
    assert_parity(x, samples((4, 3, 5), torch.float32, seed=1), 4, 1, "mean 100")


def test_no_samples_and_no_numbers(backend: str) -> None:
    x = leaf(torch.ones(0, 3, 2))
    value = minibatch_stddev(x)
    assert value.shape == (0, 1)
    (first,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    assert first.shape == (0, 3, 2)
    assert minibatch_stddev(torch.ones(4, 3, 0)).isnan().all()


def double_input() -> Tensor:
    return leaf(samples((4, 2, 3), torch.float64))


@pytest.mark.parametrize(("size", "blocks"), [(2, 1), (4, 2), (None, 1)])
def test_gradcheck_and_gradgradcheck(backend: str, size: int | None, blocks: int) -> None:
    function = lambda x: minibatch_stddev(x, group_size=size, num_channels=blocks)  # noqa: E731
    assert gradcheck(function, double_input()) and gradgradcheck(function, double_input())


def test_gradcheck_and_gradgradcheck_of_the_registered_operators(native: None) -> None:
    operators = torch.ops.wgan_kernels
    forward = lambda x: operators.minibatch_stddev.default(x, 2, 2)  # noqa: E731
    backward = lambda g, x: operators.minibatch_stddev_backward.default(g, x, 2, 2)  # noqa: E731
    assert gradcheck(forward, double_input()) and gradgradcheck(forward, double_input())
    assert gradcheck(backward, (leaf(samples((2, 2), torch.float64)), double_input()))


def test_opcheck(native: None) -> None:
    operators = torch.ops.wgan_kernels
    for dtype, layout in [(torch.float32, "permuted"), (torch.bfloat16, "columns"), (torch.float64, "expanded_batch")]:
        x, direction = samples((4, 4, 3, 3), dtype, layout), samples((4, 4, 3, 3), dtype)
        for blocks in (1, 2):
            grad_value = torch.ones(2, blocks, dtype=dtype)
            for operator, arguments in [
                (operators.minibatch_stddev, (leaf(x),)),
                (operators.minibatch_stddev_backward, (leaf(grad_value), leaf(x))),
                (operators.minibatch_stddev_double_backward, (direction, grad_value, x)),
            ]:
                results = torch.library.opcheck(operator.default, (*arguments, 2, blocks))
                assert set(results.values()) == {"SUCCESS"} and len(results) == 4


@pytest.mark.parametrize("layout", LAYOUTS)
def test_gradients_lie_as_torch_lays_them(native: None, layout: str) -> None:
    x = leaf(samples((4, 4, 3, 5), torch.float32, layout))
    for blocks in (1, 2):
        (first,) = torch.autograd.grad(minibatch_stddev(x, num_channels=blocks).sum(), x, create_graph=True)
        assert form(first) == form(torch.empty_like(x))


def test_third_derivative_raises(native: None) -> None:
    x = double_input()
    (first,) = torch.autograd.grad(minibatch_stddev(x).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives of minibatch_stddev are not supported"):
        second.sum().backward()


def test_writing_into_the_input_before_backward_raises(native: None) -> None:
    x = double_input() * 1
    value = minibatch_stddev(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.sum().backward()


def test_same_bits_for_any_number_of_threads(native: None, one_and_two_threads: tuple[int, int]) -> None:
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        x, direction = samples((8, 3, 60, 70), torch.float32), samples((8, 3, 60, 70), torch.float32, seed=3)
        results.append(value_and_derivatives(minibatch_stddev, x, None, direction))
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


def test_compiled_equals_eager(backend: str) -> None:
    def slope(x: Tensor) -> Tensor:
        return minibatch_stddev(x * 2).square().sum()

    compiled = compile_once(slope, backend)
    x = leaf(samples((4, 3, 5), torch.float64))
    values = [f(x) for f in (slope, compiled)]
    assert_same_by_another_route(values[1].detach(), values[0].detach())
    grads = [torch.autograd.grad(value, x)[0] for value in values]
    assert_same_by_another_route(grads[1], grads[0])


def test_func_transforms(backend: str) -> None:
    x = samples((4, 3, 5), torch.float64)
    loss = lambda x: minibatch_stddev(x).square().sum()  # noqa: E731
    expected = torch.autograd.grad(formula(leaf_x := leaf(x), 4, 1).square().sum(), leaf_x)[0]
    assert_same_by_another_route(torch.func.grad(loss)(x), expected)
    problems = torch.stack([x, x.flip(0) * 2])
    batched = torch.func.vmap(minibatch_stddev)(problems)
    assert_same_by_another_route(batched, torch.stack([formula(each, 4, 1) for each in problems]))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"x": 3}, TypeError, ["x must be a torch.Tensor, got int"]),
        ({"x": torch.ones(4, 3, dtype=torch.int32)}, TypeError, ["x must be a tensor of float64", "int32"]),
        ({"x": torch.ones(4)}, ValueError, [r"x must have the dimensions \(B, C, ...\)", r"\(4,\)"]),
        ({"x": torch.ones(6, 3)}, ValueError, ["group_size must divide the number of samples, got 4 for 6"]),
        ({"x": torch.ones(4, 3), "num_channels": 2}, ValueError, ["num_channels must divide", "got 2 for 3"]),
        ({"x": torch.ones(4, 3), "group_size": 0}, ValueError, ["group_size must be at least 1, got 0"]),
        ({"x": torch.ones(4, 3), "group_size": 2.0}, TypeError, ["group_size must be a whole number, got float"]),
    ],
)
def test_errors(call: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: minibatch_stddev(**call), error, *words)
