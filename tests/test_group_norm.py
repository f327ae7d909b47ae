"""group_norm: layer, group and instance normalisation, their first and their second derivatives."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, LAYOUTS, NARROW, assert_same_bits, lay_out, leaf, samples
from hypothesis import given
from hypothesis import strategies as st
from tolerances import FAR_FROM_ORIGIN, assert_as_good_as_torch, largest
from torch import Tensor
from torch.nn import functional

from wgan_kernels import use_backend
from wgan_kernels.ops.group_norm import group_norm, layer_norm, normalised, run_pass
from wgan_kernels.reference import group_norm as reference

EPS = 1e-5
# Shape, groups, and how many dimensions a layer has, 0 for groups of channels. A parameter is copied to each element of
# fewer than 256 positions; sums are widened after 16 vectors, and begin anew after 4096 elements.
CASES = [
    ((7, 5), 1, 1),
    ((3, 2, 3, 4), 1, 2),
    ((2, 1030), 1, 1),
    ((21, 37), 1, 1),
    ((3, 4, 5, 5), 1, 3),
    ((6, 12), 3, 0),
    ((5, 6, 3, 3), 3, 0),
    ((3, 6, 7), 6, 0),
    ((2, 4, 16, 17), 2, 0),
    ((3, 2, 33, 31), 2, 0),
    ((1, 3, 65, 67), 1, 0),
    ((18, 4, 2, 3, 2), 2, 0),
]


def plain(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int) -> Tensor:
    """As PyTorch has it."""
    if layer_dims:
        return functional.layer_norm(x, x.shape[x.dim() - layer_dims :], weight, bias, EPS)
    return functional.group_norm(x, groups, weight, bias, EPS)


def ours(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int, layer_dims: int) -> Tensor:
    if layer_dims:
        return layer_norm(x, x.shape[x.dim() - layer_dims :], weight, bias, EPS)
    return group_norm(x, groups, weight, bias, EPS)


def param_shape(shape: tuple[int, ...], layer_dims: int) -> tuple[int, ...]:
    return shape[len(shape) - layer_dims :] if layer_dims else shape[1:2]


def params_for(shape: tuple[int, ...], layer_dims: int, dtype: torch.dtype, seed: int = 5) -> list[Tensor]:
    return [samples(param_shape(shape, layer_dims), dtype, seed=seed + k) + 1 - k for k in range(2)]


def derivatives(
    function: Callable[..., Tensor], inputs: list[Tensor | None], grad_y: Tensor, along: list[Tensor]
) -> list[Tensor]:
    """The value; its gradients g by the inputs for an outer gradient; those of <g, along> by it and by the inputs."""
    leaves = [None if t is None else leaf(t) for t in inputs]
    given = [t for t in leaves if t is not None]
    grad_y = leaf(grad_y)
    y = function(*leaves)
    first = torch.autograd.grad(y, given, grad_y, create_graph=True)
    second_by = [grad_y, *given[:2]]  # the bias has none
    second = torch.autograd.grad(first, second_by, along[: len(first)])
    return [t.detach() for t in (y, *first, *second)]


def assert_parity(
    x: Tensor, params: list[Tensor | None], groups: int, layer_dims: int, where: str, grad_layout: str = "contiguous"
) -> None:
    grad_y = samples(tuple(x.shape), x.dtype, grad_layout, seed=2)
    along = [samples(tuple(t.shape), t.dtype, seed=8 + k) for k, t in enumerate([x, *params]) if t is not None]

    def of(function: Callable[..., Tensor], wide: bool) -> list[Tensor]:
        inputs = [t if t is None or not wide else t.double() for t in (x, *params)]
        outer = [t.double() if wide else t for t in (grad_y, *along)]
        return derivatives(lambda *each: function(*each, groups, layer_dims), inputs, outer[0], outer[1:])

    results = of(ours, False), of(plain, False), of(plain, True)
    assert results[0][0].dtype == x.dtype
    given = [name for name, t in zip(("x", "weight", "bias"), (x, *params)) if t is not None]
    names = ["y", *given, "grad_y", *[name for name in given if name != "bias"]]
    terms = largest_terms(x, params[0], groups, layer_dims, grad_y, along)
    for order, (name, *each) in enumerate(zip(names, *results, strict=True)):
        term = 0.0 if order == 0 else terms[order > len(given)][name]
        assert_as_good_as_torch(*each, f"{order}, by {name}, of {where}", term)


def largest_terms(
    x: Tensor, weight: Tensor | None, groups: int, layer_dims: int, grad_y: Tensor, along: list[Tensor]
) -> list[dict[str, float]]:
    """The size of what is added up in the first and in the second derivatives, had everything the same sign."""
    _, _, rstd = reference.group_norm(x.double(), None, None, groups, layer_dims, EPS)
    r, w, g = rstd.max().item(), 1.0 if weight is None else largest(weight), largest(grad_y)
    u, p, q = [largest(t) for t in along] + [0.0] * (3 - len(along))
    count = x.numel() // (1 if weight is None else weight.numel())
    first = {"x": r * w * g, "weight": count**0.5 * g, "bias": count**0.5 * g}
    second = {"x": r * p * g + r * r * w * g * u, "grad_y": w * r * u + p + q, "weight": count**0.5 * g * r * u}
    return [first, second]


@pytest.mark.parity
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, layout: str) -> None:
    affine = itertools.cycle([True, False, True])
    for shape, groups, layer_dims in CASES:
        x = samples(shape, dtype, layout, 1)
        if "expanded" in layout:  # groups of one number, of which torch's derivatives are nothing but rounding
            x = x + samples(shape, dtype, seed=3)
        params = params_for(shape, layer_dims, dtype) if next(affine) else [None, None]
        grad_layout = layout if "expanded" not in layout else "contiguous"
        assert_parity(x, params, groups, layer_dims, f"{shape}, {groups}, {layer_dims}, {layout}", grad_layout)


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_row_width(native: None, dtype: torch.dtype) -> None:
    for width in range(3, 140):
        shape = (5, width)
        assert_parity(samples(shape, dtype, seed=1), params_for(shape, 1, dtype), 1, 1, f"width {width}")


@pytest.mark.parity
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_number_of_channels_last(native: None, dtype: torch.dtype) -> None:
    for channels in (1, 2, 3, 4, 7, 8, 15, 16, 17, 31, 33, 64, 66):
        x = samples((3, 2 * channels, 5, 4), dtype, "permuted", 1)
        for groups in (1, 2, 2 * channels):
            assert_parity(x, params_for(tuple(x.shape), 0, dtype), groups, 0, f"{channels}, {groups}", "permuted")


@pytest.mark.parity
@pytest.mark.parametrize(("shape", "groups", "layer_dims"), [((70, 16384), 1, 1), ((33, 64, 32, 32), 8, 0)], ids=str)
def test_results_larger_than_the_caches(native: None, shape: tuple[int, ...], groups: int, layer_dims: int) -> None:
    for layout in ("contiguous", "permuted"):
        x = samples(shape, torch.float32, layout, seed=1)
        assert_parity(x, params_for(shape, layer_dims, torch.float32), groups, layer_dims, str(shape), layout)


@given(
    batch=st.integers(1, 40),
    channels=st.integers(1, 6),
    groups=st.integers(1, 4),
    space=st.lists(st.integers(1, 9), min_size=0, max_size=3),
    dtype=st.sampled_from(DTYPES),
    layout=st.sampled_from(["contiguous", "offset", "columns", "permuted", "transposed"]),
    given_params=st.sampled_from([(True, True), (True, False), (False, True), (False, False)]),
)
def test_drawn_shapes(
    batch: int, channels: int, groups: int, space: list[int], dtype: torch.dtype, layout: str,
    given_params: tuple[bool, bool],
) -> None:  # fmt: skip
    shape = (batch, channels * groups, *space)
    if torch.Size(shape[1:]).numel() // groups < 2:
        return
    params = [t if is_given else None for t, is_given in zip(params_for(shape, 0, dtype), given_params)]
    x, grad_y = samples(shape, dtype, layout, 1), samples(shape, dtype, seed=2)
    y, mean, rstd = run_pass("group_norm", x, x, *params, groups, 0, EPS)
    args = grad_y, x, *params, mean, rstd, groups, 0, True
    along = [samples(tuple(x.shape), dtype, seed=3), *[None if t is None else t + 1 for t in params]]
    double = *along, grad_y, x, params[0], mean, rstd, groups, 0, batch % 2 == 0, True
    with use_backend("reference"):
        exact = [
            run_pass("group_norm", x, x, *params, groups, 0, EPS),
            run_pass("group_norm_backward", x, *args),
            run_pass("group_norm_double_backward", x, *double),
        ]
    native = [
        (y, mean, rstd),
        run_pass("group_norm_backward", x, *args),
        run_pass("group_norm_double_backward", x, *double),
    ]
    for results, expected in zip(native, exact):
        for a, b in zip(results, expected):
            assert_as_good_as_torch(a, b, b.double(), f"{shape}, {groups}, {layout}", terms=8.0)


@pytest.mark.parametrize("dtype", NARROW)
@pytest.mark.parametrize(("shape", "groups", "layer_dims"), [((9, 70), 1, 1), ((4, 6, 5, 5), 3, 0)], ids=str)
def test_half_floats_with_parameters_of_float32(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...], groups: int, layer_dims: int
) -> None:
    params = params_for(shape, layer_dims, torch.float32)
    for layout in ("contiguous", "permuted"):
        assert_parity(samples(shape, dtype, layout, 1), params, groups, layer_dims, f"{shape}, {layout}")


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize(("shape", "groups", "layer_dims"), [((4, 1500), 1, 1), ((3, 6, 20, 20), 3, 0)], ids=str)
def test_far_from_zero(
    backend: str, dtype: torch.dtype, shape: tuple[int, ...], groups: int, layer_dims: int
) -> None:
    """Mean 100 and deviation 0.01: as good as the same numbers around 0, as all is computed from differences."""
    for layout in ("contiguous", "permuted"):
        x = lay_out(samples(shape, torch.float64, seed=1) * 0.01 + 100, layout).to(dtype)
        near = (x.double() - 100).to(dtype)  # exact
        params = params_for(shape, layer_dims, dtype)
        grad_y, u = samples(shape, dtype, seed=2), samples(shape, dtype, seed=3)
        along = [u, *[t + 1 for t in params]]
        results = [
            derivatives(lambda *each: ours(*each, groups, layer_dims), [t, *params], grad_y, along) for t in (x, near)
        ]
        for at_100, at_0 in zip(*results):
            assert largest(at_100 - at_0) < FAR_FROM_ORIGIN[dtype] * largest(at_0), layout


def test_known_answer(backend: str) -> None:
    x = torch.tensor([[1.0, 3.0, 5.0, 7.0], [2.0, 2.0, 2.0, 2.0]], dtype=torch.float64)
    y, mean, rstd = normalised(x, None, None, 2, 0, 0.0)
    assert mean.tolist() == [[2.0, 6.0], [2.0, 2.0]] and rstd[0].tolist() == [1.0, 1.0]
    assert y[0].tolist() == [-1.0, 1.0, -1.0, 1.0] and y[1].isnan().all()
    weight, bias = torch.tensor([1.0, 2.0, 3.0, 4.0]).double(), torch.tensor([0.0, 0.0, 1.0, 1.0]).double()
    assert group_norm(x[:1], 2, weight, bias, 0.0).tolist() == [[-1.0, 2.0, -2.0, 5.0]]
    assert layer_norm(x[1:], (4,), weight, bias, 1.0).tolist() == [bias.tolist()]


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_are_all_alike(backend: str, dtype: torch.dtype) -> None:
    x = torch.full((3, 4, 6, 50), 0.1).to(dtype)
    for layout in ("contiguous", "permuted"):
        inputs = [lay_out(x, layout), *params_for(tuple(x.shape), 0, dtype)]
        results = derivatives(lambda *each: ours(*each, 2, 0), inputs, x, [x, *inputs[1:]])
        assert all(result.isfinite().all() for result in results)
        assert_same_bits(results[0], inputs[2][:, None, None].expand(x.shape))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_what_is_not_finite_stays_in_its_group(backend: str, bad: float) -> None:
    for layout in ("contiguous", "permuted"):
        x = samples((3, 4, 5, 5), torch.float32, layout, 1)
        x[1, 2, 3, 3] = bad
        y, _, rstd = normalised(x, None, None, 2, 0, EPS)
        is_bad = torch.zeros(3, 2, dtype=torch.bool)
        is_bad[1, 1] = True
        assert torch.equal(rstd.isnan(), is_bad)
        assert torch.equal(y.isnan().reshape(3, 2, -1).all(2), is_bad) and y.isnan().sum() == 50
        first = run_pass("group_norm_backward", x, y.nan_to_num(), x, None, None, _, rstd, 2, 0, False)[0]
        assert torch.equal(first.isnan().reshape(3, 2, -1).any(2), is_bad)


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 4, 3, 0)])
def test_no_samples_and_no_positions(backend: str, shape: tuple[int, ...]) -> None:
    inputs = [torch.ones(shape), torch.ones(4), torch.ones(4)]
    y, grad_x, grad_weight, grad_bias, by_y, by_x, by_weight = derivatives(
        lambda *each: ours(*each, 2, 0), inputs, torch.ones(shape), [t.clone() for t in inputs]
    )
    assert y.shape == grad_x.shape == by_y.shape == by_x.shape == shape
    assert torch.equal(torch.stack([grad_weight, grad_bias, by_weight]), torch.zeros(3, 4))
    assert layer_norm(torch.ones(0, 3), (3,), None, None, EPS).shape == (0, 3)


def test_same_bits_twice_and_for_any_number_of_threads(backend: str, one_and_two_threads: tuple[int, int]) -> None:
    for shape, groups, layer_dims, layout in [
        ((300, 700), 1, 1, "contiguous"),
        ((40, 16, 20, 20), 4, 0, "contiguous"),
        ((70, 16, 5, 5), 4, 0, "contiguous"),
        ((40, 16, 20, 20), 4, 0, "permuted"),
    ]:
        inputs = [samples(shape, torch.float32, layout, 1), *params_for(shape, layer_dims, torch.float32)]
        along = [samples(tuple(t.shape), torch.float32, seed=3) for t in inputs]
        results = []
        for threads in one_and_two_threads * 2:
            torch.set_num_threads(threads)
            function = lambda *each, g=groups, d=layer_dims: ours(*each, g, d)  # noqa: E731
            results.append(derivatives(function, inputs, samples(shape, torch.float32, seed=2), along))
        for other in results[1:]:
            for a, b in zip(other, results[0]):
                assert_same_bits(a, b)
