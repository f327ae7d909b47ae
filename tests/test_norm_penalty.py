"""norm_penalty: (||g|| - target)^2 per sample, its first and its second derivative."""

from __future__ import annotations

import itertools
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
    compile_once,
    each_backend,
    form,
    lay_out,
    leaf,
    penalty,
    samples,
    value_and_derivatives,
)
from hypothesis import given
from hypothesis import strategies as st
from tolerances import assert_as_good_as_torch, assert_rounded, assert_same_by_another_route
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import norm_penalty, use_backend

REDUCTIONS = ("mean", "sum", "none")
# (target, one_sided): above and below most norms of the samples, and the target that costs nothing only at zero.
SETTINGS = [(1.0, False), (1.0, True), (0.0, False), (0.0, True), (3.7, False), (3.7, True)]


def assert_parity(grad: Tensor, direction: Tensor, settings: dict[str, Any], where: str) -> None:
    """Value, first derivative and both second ones, for an outer gradient other than one."""
    values = grad.shape[:1] if settings["reduction"] == "none" else ()
    outer = samples(tuple(values), torch.float64, seed=11) + 2

    ours = value_and_derivatives(lambda g: norm_penalty(g, **settings), grad, outer, direction)
    plain = value_and_derivatives(lambda g: penalty(g, **settings), grad, outer, direction)
    # The outer gradient reaches each formula rounded to the dtype of its value.
    outer = outer.to(ours[0].dtype)
    exact = value_and_derivatives(lambda g: penalty(g, **settings), grad.double(), outer, direction)
    assert ours[0].dtype == torch.promote_types(grad.dtype, torch.float32) == ours[3].dtype
    assert ours[1].dtype == ours[2].dtype == grad.dtype
    terms = largest_terms(grad.double(), direction.double(), settings, outer)
    assert_rounded(ours[0], exact[0], f"value of {where}", terms[0])
    names = ("first", "second", "second by value")
    for name, term, *each in zip(names, terms[1:], ours[1:], plain[1:], exact[1:], strict=True):
        assert_as_good_as_torch(*each, f"{name} derivative of {where}", term)


def largest_terms(grad: Tensor, direction: Tensor, settings: dict[str, Any], outer: Tensor) -> list[float]:
    """The size of what is added up in the value and in each derivative, had everything the same sign."""
    g, u = grad.reshape(grad.shape[0], -1), direction.reshape(grad.shape[0], -1)
    norms, along = g.norm(dim=1), g.norm(dim=1) * u.norm(dim=1)
    factor = 1 / len(g) if settings["reduction"] == "mean" else 1.0
    slope = 2 * factor * (1 + settings["target"] / norms.clamp(min=torch.finfo(torch.float64).tiny))
    outer = outer.abs().double()
    value = factor * (norms + settings["target"]) ** 2
    first = outer * slope * g.abs().amax(1)
    second = outer * slope * (u.abs().amax(1) + along / norms**2 * g.abs().amax(1))
    summed = [value, slope * along] if settings["reduction"] == "none" else [value.sum(), (slope * along).sum()]
    return [each.nan_to_num().max().item() for each in (summed[0], first, second, summed[1])]


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    settings = itertools.cycle(itertools.product(SETTINGS, REDUCTIONS))
    for shape in [*SHAPES, *([LARGE] if layout in ("contiguous", "columns") else [])]:
        if 0 in shape:
            continue
        for direction_layout in sorted({layout, "contiguous"}):
            grad, direction = samples(shape, dtype, layout, 1), samples(shape, dtype, direction_layout, 2)
            for (target, one_sided), reduction in itertools.islice(settings, 2):  # 18 settings, 2 at a time
                chosen = {"target": target, "one_sided": one_sided, "reduction": reduction}
                assert_parity(grad, direction, chosen, f"{shape}, {layout}, {direction_layout}, {chosen}")


@pytest.mark.parity
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("target", "one_sided"), SETTINGS)
def test_every_setting(backend: str, target: float, one_sided: bool, reduction: str) -> None:
    chosen = {"target": target, "one_sided": one_sided, "reduction": reduction}
    for dtype in (torch.float64, torch.bfloat16):
        assert_parity(samples((6, 14), dtype, seed=3), samples((6, 14), dtype, seed=4), chosen, str(chosen))


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_width(native: None, dtype: torch.dtype) -> None:
    for width in range(1, 140):
        chosen = {"target": 1.0, "one_sided": False, "reduction": "mean"}
        assert_parity(samples((3, width), dtype, seed=1), samples((3, width), dtype, seed=2), chosen, f"width {width}")


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(3, 16384 * 22 + 16), (1030, 1024), (1030, 1031)])
def test_results_larger_than_the_caches(native: None, dtype: torch.dtype, shape: tuple[int, int]) -> None:
    chosen = {"target": 1.0, "one_sided": False, "reduction": "sum"}
    assert_parity(samples(shape, dtype, seed=1), samples(shape, dtype, seed=2), chosen, str(shape))


@given(
    shape=st.lists(st.integers(1, 20), min_size=1, max_size=4),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(LAYOUTS),
    scale=st.sampled_from([0.01, 1.0, 30.0]),
    target=st.sampled_from([0.0, 0.5, 1.0, 10.0]),
    one_sided=st.booleans(),
    reduction=st.sampled_from(REDUCTIONS),
    seed=st.integers(0, 1000),
)
def test_drawn_shapes_and_settings(
    shape: list[int], dtype: torch.dtype, layout: str, scale: float, seed: int, **settings: Any
) -> None:
    grad = lay_out(samples(tuple(shape), dtype, seed=seed) * scale, layout)
    direction = samples(tuple(shape), dtype, seed=seed + 1)
    for name in each_backend():
        assert_parity(grad, direction, settings, name)


@pytest.mark.parametrize("dtype", DTYPES)
def test_known_answer(backend: str, dtype: torch.dtype) -> None:
    grad = leaf(torch.tensor([[3.0, 4.0], [0.0, 0.5]], dtype=dtype))
    assert norm_penalty(grad, reduction="none").tolist() == [16.0, 0.25]
    assert norm_penalty(grad).item() == 8.125 and norm_penalty(grad, reduction="sum").item() == 16.25
    assert norm_penalty(grad, one_sided=True, reduction="none").tolist() == [16.0, 0.0]
    assert norm_penalty(grad, target=0.0, reduction="none").tolist() == [25.0, 0.25]
    (first,) = torch.autograd.grad(norm_penalty(grad, reduction="sum"), grad)
    expected = torch.tensor([[8 * 0.6, 8 * 0.8], [0.0, -1.0]], dtype=torch.float64)
    assert_as_good_as_torch(first, expected.to(dtype), expected)
    images = torch.tensor([3.0, 4.0], dtype=dtype).reshape(1, 2, 1, 1)
    assert norm_penalty(images).item() == 16.0 and norm_penalty(grad[:, 0]).item() == ((3 - 1) ** 2 + 1) / 2


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("target", "one_sided"), SETTINGS)
def test_at_zero_gradient(backend: str, dtype: torch.dtype, target: float, one_sided: bool, reduction: str) -> None:
    grad = samples((4, 33), dtype)
    grad[1], grad[3] = 0, -0.0
    direction = samples((4, 33), dtype, seed=2)
    function = lambda g: norm_penalty(g, target=target, one_sided=one_sided, reduction=reduction)  # noqa: E731
    value, first, second, by_value = value_and_derivatives(function, grad, None, direction)
    for result in (value, first, second, by_value):
        assert result.isfinite().all()
    zero = torch.tensor([False, True, False, True])
    assert first[zero].eq(0).all() and first[~zero].ne(0).any()
    if reduction == "none":
        assert value[zero].tolist() == ([0.0, 0.0] if one_sided else [pytest.approx(target**2)] * 2)
        assert by_value[zero].eq(0).all()
    share = 1 / 4 if reduction == "mean" else 1
    expected = 2 * share * direction[zero] if target == 0 else torch.zeros_like(direction[zero])
    assert torch.equal(second[zero], expected)
    # Beside the zeros nothing changes.
    _, others, others_second, _ = value_and_derivatives(function, grad[~zero], None, direction[~zero])
    share = 2 if reduction == "mean" else 1
    assert_as_good_as_torch(first[~zero] * share, others, others.double())
    assert_as_good_as_torch(second[~zero] * share, others_second, others_second.double())


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_norm_of_exactly_the_target(backend: str, dtype: torch.dtype) -> None:
    grad = torch.tensor([[0.6, 0.8], [1.0, 0.0]], dtype=dtype)
    direction = torch.tensor([[0.0, 0.0], [3.0, 5.0]], dtype=dtype)
    for one_sided in (False, True):
        function = lambda g, o=one_sided: norm_penalty(g, one_sided=o, reduction="sum")  # noqa: E731
        _, first, second, _ = value_and_derivatives(function, grad, None, direction)
        assert first[1].tolist() == [0.0, 0.0]
        # One-sided, the kink lies here: torch's relu has derivative 0 at 0, hence this is 0.
        assert second[1].tolist() == ([0.0, 0.0] if one_sided else [6.0, 0.0])


@pytest.mark.parametrize("tiny", [1e-30, 1e-38, 1e-40])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_tiny_gradients_have_finite_derivatives(backend: str, dtype: torch.dtype, tiny: float) -> None:
    grad = torch.tensor([[tiny, 0.0, 0.0], [0.6, 0.8, 0.0]], dtype=dtype)
    value, first, second, _ = value_and_derivatives(lambda g: norm_penalty(g, reduction="sum"), grad, None, grad)
    assert value.isfinite()
    assert first[0].tolist() == [pytest.approx(-2.0, rel=0.01), 0.0, 0.0]
    assert not second.isnan().any()
    # With target 0 the penalty is |g|^2, as smooth as can be.
    _, first, second, _ = value_and_derivatives(
        lambda g: norm_penalty(g, target=0.0, reduction="sum"), grad, None, torch.ones_like(grad)
    )
    assert_same_bits(first, 2 * grad)
    assert_same_bits(second, torch.full_like(grad, 2.0))


def test_sums_run_in_float64(backend: str) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        grad = torch.full((2, 40_000), 2.0**-13, dtype=dtype)
        grad[:, 5] = 1.0  # in float32 the squares beside it are lost
        value = norm_penalty(grad, target=0.0)
        assert value.item() == pytest.approx(1 + 39_999 * 2.0**-26, abs=1e-7)
        assert_rounded(value, grad.double().square().sum(1).mean())
    many = torch.full((70_000, 1), 2.0**-12)
    many[0] = 1.0
    assert_rounded(norm_penalty(many, target=0.0, reduction="sum"), many.double().square().sum())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_propagate(backend: str, dtype: torch.dtype, bad: float) -> None:
    for at in (0, 20, 36):
        grad, direction = samples((3, 37), dtype), torch.ones(3, 37, dtype=dtype)
        grad[1, at] = bad
        for one_sided in (False, True):
            function = lambda g, o=one_sided: norm_penalty(g, one_sided=o, reduction="none")  # noqa: E731
            value, first, second, _ = value_and_derivatives(function, grad, None, direction)
            assert value[1].isnan() if bad != bad else value[1] == torch.inf
            assert first[1].isnan().any() and second[1].isnan().any()
            for result in (value, first, second):
                assert result[::2].isfinite().all(), "it spread to other samples"
        for reduction in ("mean", "sum"):
            assert not norm_penalty(grad, reduction=reduction).isfinite()


def test_no_samples_and_no_features(backend: str) -> None:
    nothing = leaf(torch.ones(0, 3))
    assert norm_penalty(nothing, reduction="none").shape == (0,)
    assert norm_penalty(nothing, reduction="sum").item() == 0 and norm_penalty(nothing).isnan()
    (first,) = torch.autograd.grad(norm_penalty(nothing), nothing, create_graph=True)
    assert first.shape == (0, 3)
    (second,) = torch.autograd.grad(first.sum(), nothing)
    assert second.shape == (0, 3)
    flat = leaf(torch.ones(4, 0))
    assert norm_penalty(flat, target=0.5, reduction="none").tolist() == [0.25] * 4
    assert torch.autograd.grad(norm_penalty(flat), flat)[0].shape == (4, 0)


def double_input() -> Tensor:
    return leaf(samples((3, 2, 2), torch.float64))


@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize(("target", "one_sided"), SETTINGS)
def test_gradcheck_and_gradgradcheck(backend: str, target: float, one_sided: bool, reduction: str) -> None:
    def function(grad: Tensor) -> Tensor:
        return norm_penalty(grad, target=target, one_sided=one_sided, reduction=reduction)

    norms = double_input().flatten(1).norm(dim=1)
    assert (norms - target).abs().min() > 0.01, "the test data lie on a kink"
    assert gradcheck(function, double_input())
    assert gradgradcheck(function, double_input())


@pytest.mark.parametrize("reduction", [0, 1, 2])
@pytest.mark.parametrize(("target", "one_sided"), SETTINGS)
def test_gradcheck_and_gradgradcheck_of_the_registered_operators(
    native: None, target: float, one_sided: bool, reduction: int
) -> None:
    settings = (target, one_sided, reduction, 2.5)

    def forward(grad: Tensor) -> Tensor:
        return torch.ops.wgan_kernels.norm_penalty.default(grad, *settings)[0]

    def backward(grad_value: Tensor, grad: Tensor) -> Tensor:
        norms = grad.detach().flatten(1).norm(dim=1)
        return torch.ops.wgan_kernels.norm_penalty_backward.default(grad_value, grad, norms, *settings)

    assert gradcheck(forward, double_input())
    assert gradgradcheck(forward, double_input())
    value = leaf(forward(double_input()))
    assert gradcheck(backward, (leaf(torch.ones_like(value) * 1.5), double_input()))


def test_opcheck(native: None) -> None:
    operators = torch.ops.wgan_kernels
    for dtype, layout in [(torch.float32, "permuted"), (torch.bfloat16, "columns"), (torch.float64, "expanded_batch")]:
        grad, direction = samples((4, 3, 5, 5), dtype, layout), samples((4, 3, 5, 5), dtype)
        norms = grad.double().flatten(1).norm(dim=1)
        for reduction in (0, 1):
            settings = (1.0, False, reduction, 10.0)
            value = torch.ones(4 if reduction == 0 else (), dtype=torch.promote_types(dtype, torch.float32))
            for operator, arguments in [
                (operators.norm_penalty, (leaf(grad),)),
                (operators.norm_penalty_with_grad, (leaf(grad),)),
                (operators.norm_penalty_backward, (leaf(value), leaf(grad), norms)),
                (operators.norm_penalty_double_backward, (direction, value, grad, norms)),
            ]:
                results = torch.library.opcheck(operator.default, (*arguments, *settings))
                assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_gradient_kept_from_the_forward_sweep(native: None) -> None:
    """It is given away once, for an outer gradient of one, and never hides what it depends on."""
    grad = double_input()
    expected = torch.autograd.grad(penalty(grad), grad)[0]
    value = norm_penalty(grad)
    (first,) = torch.autograd.grad(value, grad, retain_graph=True)
    assert_same_by_another_route(first, expected, "gradient")
    first.zero_()
    (again,) = torch.autograd.grad(value, grad, retain_graph=True)
    assert_same_by_another_route(again, expected, "gradient, again")
    (half,) = torch.autograd.grad(norm_penalty(grad) * 0.5, grad)
    assert_same_by_another_route(half, expected / 2, "gradient of a half")
    (each,) = torch.autograd.grad(norm_penalty(grad), grad, torch.tensor([1.0, 3.0]).double(), is_grads_batched=True)
    assert_same_by_another_route(each, torch.stack([expected, 3 * expected]), "batched gradients")
    (first,) = torch.autograd.grad(norm_penalty(grad), grad, create_graph=True)
    assert first.requires_grad


def test_writing_into_the_input_before_backward_raises(backend: str) -> None:
    grad = double_input()
    x = grad * 1
    value = norm_penalty(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_backward_makes_only_the_gradient(native: None) -> None:
    """What comes out beside the value needs no gradient of zeros."""
    grad = leaf(torch.ones(64, 1000))
    for reduction in REDUCTIONS:
        value = norm_penalty(grad, reduction=reduction)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as recorded:
            torch.autograd.grad(value, grad, torch.ones_like(value))
        assert "aten::zeros" not in {event.key for event in recorded.key_averages()}


def test_third_derivative_raises(native: None) -> None:
    for function in (norm_penalty, lambda g: torch.ops.wgan_kernels.norm_penalty.default(g, 1.0, False, 1, 1.0)[0]):
        grad = double_input()
        (first,) = torch.autograd.grad(function(grad), grad, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), grad, create_graph=True)
        with pytest.raises(NotImplementedError, match="third derivatives of norm_penalty are not supported"):
            torch.autograd.grad(second.sum(), grad)


def test_functions_of_the_penalty(backend: str) -> None:
    """What surrounds the penalty in a loss must not change its derivatives: orders mix, parameters join."""
    theta = samples((5, 5), torch.float64, seed=5)
    x = samples((6, 5), torch.float64, seed=6)

    def gradient(loss: Any, value: Any) -> tuple[Tensor, Tensor, Tensor]:
        params, points = leaf(theta), leaf(x)
        scores = (points @ params).tanh().square().sum(1)
        (grad,) = torch.autograd.grad(scores.sum(), points, create_graph=True)
        result = loss(value(grad), params)
        (first,) = torch.autograd.grad(result, params, create_graph=True)
        (second,) = torch.autograd.grad(first.square().sum(), params)
        return result, first, second

    losses = [
        lambda p, _: p**2,
        lambda p, params: p + params.square().sum() * 3,
        lambda p, params: p.sqrt() * params.sin().sum() + p.exp(),
        lambda p, params: (p * params.detach()).sum() - 2 * p,
    ]
    for loss, target in itertools.product(losses, (0.3, 0.0)):
        ours = gradient(loss, lambda g, t=target: norm_penalty(g, target=t))
        plain = gradient(loss, lambda g, t=target: penalty(g, t))
        for result, expected in zip(ours, plain, strict=True):
            assert_same_by_another_route(result, expected)


def test_outer_gradients_of_any_layout(backend: str) -> None:
    grad, direction = samples((6, 9), torch.float32), samples((6, 9), torch.float32, seed=2)
    values = samples((6,), torch.float32, seed=3)
    function = lambda g: norm_penalty(g, reduction="none")  # noqa: E731
    expected = value_and_derivatives(function, grad, values, direction)
    for layout in ("columns", "offset"):
        for ours, same in zip(
            value_and_derivatives(function, grad, lay_out(values, layout), direction), expected, strict=True
        ):
            assert_same_bits(ours, same)
    ones = [torch.ones(6), torch.ones(()).expand(6)]
    results = [value_and_derivatives(function, grad, each, direction) for each in ones]
    for ours, same in zip(*results, strict=True):
        assert_same_bits(ours, same)


def test_a_gradient_written_after_the_forward_is_noticed(native: None) -> None:
    source = leaf(samples((3, 4), torch.float32))
    grad = source * 2
    value = norm_penalty(grad)
    grad.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        value.backward()


def test_same_bits_twice_and_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    for shape in ((2, 200_003), (3001, 67), (70, 16384)):
        grad, direction = samples(shape, torch.float32, seed=1), samples(shape, torch.float32, seed=2)
        results = []
        for threads in one_and_two_threads * 2:
            torch.set_num_threads(threads)
            results.append(value_and_derivatives(norm_penalty, grad, None, direction))
        for other in results[1:]:
            for ours, first in zip(other, results[0], strict=True):
                assert_same_bits(ours, first)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_fake_tensors_have_the_strides_of_real_ones(native: None, layout: str) -> None:
    for shape in ((4, 3, 5, 5), (1, 3, 5, 5), (4, 6), (1, 1), (3,)):
        for reduction in REDUCTIONS:
            grad, direction = samples(shape, torch.bfloat16, layout), samples(shape, torch.bfloat16, "permuted")
            function = lambda g, r=reduction: norm_penalty(g, reduction=r)  # noqa: E731
            real = value_and_derivatives(function, grad, None, direction)
            with torch._subclasses.FakeTensorMode() as mode:
                fake = value_and_derivatives(function, mode.from_tensor(grad), None, mode.from_tensor(direction))
            assert [form(x) for x in fake] == [form(x) for x in real], (shape, reduction)


def test_compiled_equals_eager(backend: str) -> None:
    function = lambda g: norm_penalty(g * 2, target=0.5).exp()  # noqa: E731
    compiled = compile_once(function, backend)
    for batch in (5, 6):  # the second makes the batch size a symbol
        grads = [leaf(samples((batch, 7), torch.float32)) for _ in range(2)]
        values = compiled(grads[0]), function(grads[1])
        assert_same_by_another_route(*values)
        first = [torch.autograd.grad(value, grad)[0] for value, grad in zip(values, grads, strict=True)]
        assert_same_by_another_route(*first)


def test_compiled_penalty_of_a_functional_gradient(backend: str) -> None:
    """The route of a compiled training step: torch.func.grad inside, the penalty's backward outside."""
    points = samples((5, 4), torch.float32, seed=1)

    def function(params: Tensor) -> Tensor:
        grad = torch.func.grad(lambda x: ((x @ params).tanh() ** 2).sum())(points)
        return norm_penalty(grad, target=0.5)

    params = [leaf(samples((4, 3), torch.float32, seed=2)) for _ in range(2)]
    compile_once(function, backend)(params[0]).backward()
    function(params[1]).backward()
    assert params[0].grad.abs().max() > 0.01
    assert_same_by_another_route(params[0].grad, params[1].grad)


def test_torch_func_transforms(backend: str) -> None:
    grad = samples((4, 3), torch.float64)
    _, first, second, _ = value_and_derivatives(penalty, grad, None, torch.ones_like(grad))
    assert_same_by_another_route(torch.func.grad(norm_penalty)(grad), first)
    twice = torch.func.grad(lambda g: torch.func.grad(norm_penalty)(g).sum())(grad)
    assert_same_by_another_route(twice, second)
    batches = torch.stack([grad, 2 * grad, grad + 1])
    expected = torch.stack([penalty(each) for each in batches])
    assert_same_by_another_route(torch.func.vmap(norm_penalty)(batches), expected)
    each = torch.func.vmap(torch.func.grad(norm_penalty))(batches)[0]
    assert_same_by_another_route(each, first)


def test_a_tensor_that_outlived_its_transform(backend: str) -> None:
    """It still wraps the one that was given, whose gradient must not be lost."""
    grad, outlived = leaf(samples((4, 3), torch.float64)), []

    def leaking(g: Tensor) -> Tensor:
        outlived.append(2 * g)
        return g.sum()

    torch.func.grad(leaking)(grad)
    found, expected = [torch.autograd.grad(norm_penalty(each), grad)[0] for each in (outlived[0], 2 * grad)]
    assert_same_by_another_route(found, expected)


def test_nothing_is_recorded_where_nothing_is_asked(backend: str) -> None:
    grad = leaf(samples((4, 3), torch.float32))
    assert norm_penalty(grad).requires_grad and not norm_penalty(grad.detach()).requires_grad
    with torch.no_grad():
        assert not norm_penalty(grad).requires_grad
    with torch.inference_mode():
        assert norm_penalty(grad).is_inference()


def test_both_back_ends_agree_on_the_value(native: None) -> None:
    for dtype in DTYPES:
        grad = samples((5, 300), dtype)
        ours = norm_penalty(grad, reduction="none")
        with use_backend("reference"):
            theirs = norm_penalty(grad, reduction="none")
        assert_rounded(ours, theirs.double())


BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"grad": [[1.0]]}, TypeError, ["grad", "Tensor", "list"]),
    ({"grad": None}, TypeError, ["grad", "Tensor", "NoneType"]),
    ({"grad": torch.ones(2, 3, dtype=torch.int64)}, TypeError, ["grad", "float64", "int64"]),
    ({"grad": torch.ones(2, 3, dtype=torch.complex128)}, TypeError, ["grad", "float64", "complex128"]),
    ({"grad": torch.eye(3).to_sparse()}, TypeError, ["grad", "strided", "sparse"]),
    ({"grad": torch.tensor(1.0)}, ValueError, ["grad", "batch dimension", r"\(\)"]),
    ({"target": -0.5}, ValueError, ["target", "at least 0", "-0.5"]),
    ({"target": torch.nan}, ValueError, ["target", "nan"]),
    ({"target": torch.inf}, ValueError, ["target", "inf"]),
    ({"target": True}, TypeError, ["target", "number", "bool"]),
    ({"target": "1"}, TypeError, ["target", "number", "str"]),
    ({"target": None}, TypeError, ["target", "number", "NoneType"]),
    ({"one_sided": "yes"}, TypeError, ["one_sided", "str"]),
    ({"reduction": "avg"}, ValueError, ["reduction", "'none', 'mean', 'sum'", "'avg'"]),
    ({"reduction": None}, ValueError, ["reduction", "None"]),
    ({"reduction": 1}, ValueError, ["reduction", "1"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS)
def test_bad_arguments(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: norm_penalty(**{"grad": torch.ones(2, 3), **arguments}), error, *words)
