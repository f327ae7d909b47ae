"""minibatch_discrimination: how close each sample is to the others, its first and its second derivative."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    assert_same_bits,
    assert_same_error,
    compile_once,
    each_backend,
    lay_out,
    leaf,
    samples,
    value_and_derivatives,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_as_good_as_torch, assert_same_by_another_route, largest
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination

LAYOUTS = ("contiguous", "offset", "columns", "rows", "transposed", "permuted", "expanded")
# Samples around the width of a vector, of the strips that go over the others together and of what is weighed at a time;
# few features, whose pairs are cut into parts; numbers around those that are added up in a row.
SHAPES = [(1, 1, 1), (2, 3, 5), (7, 2, 16), (8, 1, 3), (17, 5, 17), (33, 2, 40), (70, 3, 4), (300, 2, 3)]


def formula(m: Tensor, begin: int = 0, end: int | None = None) -> Tensor:
    """As people write it, in the dtype of the samples; a sample's closeness to itself is 1."""
    return torch.exp(-(m[begin:end, None] - m).abs().sum(-1)).sum(1) - 1


def projected(shape: tuple[int, ...], dtype: torch.dtype, layout: str = "contiguous", seed: int = 0) -> Tensor:
    """Distances of order 1, whatever the number of numbers; some of them agree."""
    m = samples(shape, torch.float64, seed=seed) * (1.5 / max(shape[-1], 1))
    m[1::4] = torch.where(samples(shape, torch.float64, seed=seed + 1)[1::4] > 0.8, m[:1], m[1::4])
    return lay_out(m.to(dtype), layout)


def assert_parity(m: Tensor, begin: int = 0, end: int | None = None, where: str = "") -> None:
    """Value, first derivative and both second ones, for an outer gradient other than one."""
    rows = len(range(len(m))[begin:end])
    outer, direction = samples((rows, m.shape[1]), m.dtype, seed=11) + 2, samples(tuple(m.shape), m.dtype, seed=12)
    last = -1 if end is None else end
    ours = value_and_derivatives(lambda m: minibatch_discrimination(m, begin=begin, end=last), m, outer, direction)
    plain = value_and_derivatives(lambda m: formula(m, begin, end), m, outer, direction)
    exact = value_and_derivatives(lambda m: formula(m, begin, end), m.double(), outer.double(), direction)
    names = ("value", "first derivative", "second derivative", "second derivative by the outer gradient")
    # The sizes of what is added up, had all terms the same sign.
    closeness, weight = largest(exact[0]) + 1, 2 * largest(outer.double())
    steepest = 2 * largest(direction.double().abs().sum(-1))
    terms = (closeness, weight * closeness, weight * steepest * closeness, steepest * closeness)
    for name, term, *each in zip(names, terms, ours, plain, exact, strict=True):
        assert each[0].dtype == m.dtype
        assert_as_good_as_torch(*each, f"{name} of {where}", term)


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    for shape in SHAPES if layout in ("contiguous", "columns") else SHAPES[:5]:
        assert_parity(projected(shape, dtype, layout), where=f"{shape}, {layout}")


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("begin", "end"), [(0, 5), (3, 20), (19, None), (20, 20)])
def test_some_rows_against_all(backend: str, dtype: torch.dtype, begin: int, end: int | None) -> None:
    for shape in ((40, 3, 5), (21, 1, 17)):
        assert_parity(projected(shape, dtype), begin, end, f"rows {begin} to {end} of {shape}")


@given(
    shape=st.tuples(st.integers(1, 40), st.integers(1, 5), st.integers(1, 35)),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    seed=st.integers(0, 1000),
)
def test_drawn_shapes(shape: tuple[int, int, int], dtype: torch.dtype, layout: str, seed: int) -> None:
    for name in each_backend():
        assert_parity(projected(shape, dtype, layout, seed), where=f"{name}, {shape}, {layout}, seed {seed}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answer(backend: str, dtype: torch.dtype) -> None:
    m = leaf(torch.tensor([[[0.0, 1.0]], [[0.5, 0.5]], [[0.0, 1.0]]], dtype=dtype))
    o = minibatch_discrimination(m)
    near = torch.exp(torch.tensor(-1.0, dtype=torch.float64))
    expected = torch.stack([1 + near, 2 * near, 1 + near])[:, None]
    assert_as_good_as_torch(o.detach(), expected.to(dtype), expected)
    (first,) = torch.autograd.grad(o.sum(), m, create_graph=True)
    slopes = 2 * near * torch.tensor([[[1.0, -1.0]], [[-2.0, 2.0]], [[1.0, -1.0]]], dtype=torch.float64)
    assert_as_good_as_torch(first.detach(), slopes.to(dtype), slopes)


@pytest.mark.parametrize("dtype", DTYPES)
def test_coincident_samples_have_derivatives_of_zero(backend: str, dtype: torch.dtype) -> None:
    m = torch.full((20, 3, 4), 0.25, dtype=dtype)
    value, first, second, by_value = value_and_derivatives(minibatch_discrimination, m, None, samples(m.shape, dtype))
    assert value.eq(19).all()
    assert first.eq(0).all() and second.eq(0).all() and by_value.eq(0).all()


def test_far_samples_are_not_close(backend: str) -> None:
    m = torch.arange(12.0).reshape(6, 2, 1) * 1e4
    value, first, second, _ = value_and_derivatives(minibatch_discrimination, m, None, torch.ones_like(m))
    for result in (value, first, second):
        assert result.eq(0).all()


def test_samples_far_from_the_origin(backend: str) -> None:
    m = samples((9, 2, 3), torch.float32) * 0.01 + 100
    assert_as_good_as_torch(minibatch_discrimination(m), formula(m), formula(m.double()))


def test_no_samples_no_features_no_numbers(backend: str) -> None:
    for shape, expected in (((0, 3, 2), []), ((4, 0, 2), [[], [], [], []]), ((3, 1, 0), [[2.0], [2.0], [2.0]])):
        m = leaf(torch.ones(shape))
        o = minibatch_discrimination(m)
        assert o.tolist() == expected and o.shape == shape[:2]
        (first,) = torch.autograd.grad(o.sum(), m, create_graph=True)
        assert first.shape == shape
        assert torch.autograd.grad(first.sum(), m, allow_unused=True)[0] is not None or first.numel() == 0


def double_input(shape: tuple[int, ...] = (4, 2, 3)) -> Tensor:
    return leaf(samples(shape, torch.float64) * 0.7)


def test_gradcheck_and_gradgradcheck(backend: str) -> None:
    for begin, end in ((0, -1), (1, 3)):
        function = lambda m, b=begin, e=end: minibatch_discrimination(m, begin=b, end=e)  # noqa: E731
        assert gradcheck(function, double_input())
        assert gradgradcheck(function, double_input())


def test_gradcheck_and_gradgradcheck_of_the_registered_operators(native: None) -> None:
    operators = torch.ops.wgan_kernels
    forward = lambda m: operators.minibatch_discrimination.default(m, 1, 4)  # noqa: E731
    backward = lambda g, m: operators.minibatch_discrimination_backward.default(g, m, 1, 4)  # noqa: E731
    assert gradcheck(forward, double_input()) and gradgradcheck(forward, double_input())
    assert gradcheck(backward, (leaf(samples((3, 2), torch.float64)), double_input()))


def test_opcheck(native: None) -> None:
    operators = torch.ops.wgan_kernels
    for dtype, layout in [(torch.float32, "columns"), (torch.bfloat16, "transposed"), (torch.float64, "rows")]:
        m, direction = projected((6, 3, 5), dtype, layout), samples((6, 3, 5), dtype)
        for begin, end in ((0, -1), (2, 5)):
            grad_o = torch.ones(len(range(6)[begin : None if end < 0 else end]), 3, dtype=dtype)
            for operator, arguments in [
                (operators.minibatch_discrimination, (leaf(m),)),
                (operators.minibatch_discrimination_backward, (leaf(grad_o), leaf(m))),
                (operators.minibatch_discrimination_double_backward, (direction, grad_o, m)),
            ]:
                results = torch.library.opcheck(operator.default, (*arguments, begin, end))
                assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_third_derivative_raises(native: None) -> None:
    m = double_input()
    (first,) = torch.autograd.grad(minibatch_discrimination(m).sum(), m, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), m, create_graph=True)
    with pytest.raises(NotImplementedError, match="third derivatives of minibatch_discrimination are not supported"):
        second.sum().backward()


def test_writing_into_the_input_before_backward_raises(native: None) -> None:
    m = double_input() * 1
    o = minibatch_discrimination(m)
    m.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        o.sum().backward()


@pytest.mark.parametrize("shape", [(70, 3, 5), (300, 1, 9), (40, 20, 17)])
def test_same_bits_for_any_number_of_threads(
    native: None, one_and_two_threads: tuple[int, int], shape: tuple[int, int, int]
) -> None:
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        m, direction = projected(shape, torch.float32), samples(shape, torch.float32, seed=3)
        results.append(value_and_derivatives(minibatch_discrimination, m, None, direction))
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


def test_compiled_equals_eager(backend: str) -> None:
    def slope(m: Tensor) -> Tensor:
        return minibatch_discrimination(m * 2).square().sum()

    compiled = compile_once(slope, backend)
    m = leaf(projected((5, 3, 4), torch.float64))
    values = [f(m) for f in (slope, compiled)]
    assert_same_by_another_route(values[1].detach(), values[0].detach())
    grads = [torch.autograd.grad(value, m)[0] for value in values]
    assert_same_by_another_route(grads[1], grads[0])


def test_func_transforms(backend: str) -> None:
    m = projected((6, 3, 4), torch.float64)
    loss = lambda m: minibatch_discrimination(m).square().sum()  # noqa: E731
    expected = torch.autograd.grad(formula(leaf(m)).square().sum(), [x := leaf(m)], allow_unused=True)
    expected = torch.autograd.grad(formula(x).square().sum(), x)[0]
    assert_same_by_another_route(torch.func.grad(loss)(m), expected)
    problems = torch.stack([m, m.flip(0) * 2])
    batched = torch.func.vmap(minibatch_discrimination)(problems)
    assert_same_by_another_route(batched, torch.stack([formula(each) for each in problems]))


def test_memory_is_a_few_copies_of_the_input(native: None) -> None:
    """Of 3000 samples, eager PyTorch's differences would fill 2.3 GB and more; 200 MB are allowed for everything."""
    code = """
import resource, torch
from wgan_kernels.ops.minibatch_discrimination import minibatch_discrimination
warm = torch.randn(50, 4, 16, requires_grad=True)
def run(m):
    (first,) = torch.autograd.grad(minibatch_discrimination(m).sum(), m, create_graph=True)
    torch.autograd.grad(first.square().sum(), m)
run(warm)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
run(torch.randn(3000, 4, 16, requires_grad=True))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) * resource_unit() < 200 << 20


def resource_unit() -> int:
    """Bytes in which the most memory of a process is counted."""
    return 1 if sys.platform == "darwin" else 1024


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        ({"m": 3}, TypeError, ["m must be a torch.Tensor, got int"]),
        ({"m": torch.ones(2, 3, 4, dtype=torch.int64)}, TypeError, ["m must be a tensor of float64", "int64"]),
        ({"m": torch.ones(2, 3)}, ValueError, [r"m must have the dimensions \(B, F, K\)", r"\(2, 3\)"]),
        ({"m": torch.ones(2, 3, 4), "begin": 3}, ValueError, ["must be rows of m, which has 2", "begin=3"]),
        ({"m": torch.ones(2, 3, 4), "begin": 1, "end": 0}, ValueError, ["got begin=1 and end=0"]),
    ],
)
def test_errors(call: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: minibatch_discrimination(**call), error, *words)
