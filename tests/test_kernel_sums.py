"""kernel_sums: sums of kernel functions over pairs of points, two derivatives, ranges of rows, batches, mixtures."""

# Functions made in loops here are called before the loop goes on.
# ruff: noqa: B023

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import torch
from cases import (
    DTYPES,
    NARROW,
    assert_same_bits,
    compile_once,
    each_backend,
    form,
    leaf,
    samples,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import (
    COINCIDENT,
    FAR_APART,
    FAR_FROM_ORIGIN,
    HALF_WIDTH_PARTS,
    KNOWN,
    ROUNDED_TWICE,
    assert_as_good_as_torch,
    assert_same_by_another_route,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

from wgan_kernels import use_backend
from wgan_kernels.ops import kernel_sums as module
from wgan_kernels.ops._weighted_kernel_sum import weighted_kernel_sum
from wgan_kernels.ops.kernel_sums import kernel_sums

KINDS = ("rbf", "inverse_multiquadric")
# Tiles hold 96 points; vectors 4, 8 and 16 numbers, blocks of rows 6 and 8; long products are cut at 512 features.
SIZES = [(1, 1, 1), (2, 1, 3), (3, 5, 2), (7, 8, 8), (17, 1, 4), (33, 6, 15), (64, 64, 8), (95, 97, 5), (96, 96, 16),
         (97, 95, 17), (193, 100, 33), (100, 290, 3), (8, 5, 512), (5, 9, 530), (3, 4, 0)]  # fmt: skip


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Small sums on a busy machine wait for the second thread longer than they take; tests of threads set their own."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def terms(s: Tensor, kind: str, theta: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """k, |dk/ds|, |d2k/ds2|."""
    if kind == "rbf":
        rate = 0.5 / theta**2
        k = torch.exp(-s * rate)
        return k, k * rate, k * rate**2
    k = theta / (theta + s)
    return k, k**2 / theta, 2 * k**3 / theta**2


def plain(
    x: Tensor, y: Tensor, kinds: Sequence[str], params: Tensor, weights: Tensor, diagonal: bool = False
) -> tuple[Tensor, Tensor]:
    """Value and sums as people write them, in the dtype of x."""

    def matrix(a: Tensor, b: Tensor) -> Tensor:
        return a.square().sum(-1)[..., :, None] + b.square().sum(-1)[..., None, :] - 2 * a @ b.mT

    sums = []
    for a, b in ((x, x), (y, y), (x, y)):
        s = matrix(a, b)
        counted = (
            1 - torch.eye(s.shape[-1], dtype=x.dtype) if a is b and not diagonal else torch.ones((), dtype=x.dtype)
        )
        each = [terms(s, kind, theta[0])[0] * counted for kind, theta in zip(kinds, params.to(x.dtype), strict=True)]
        sums.append(torch.stack([k.sum((-2, -1)) for k in each], -1))
    sums = torch.stack(sums, -2)
    return (weights.to(x.dtype) * sums).sum((-2, -1)), sums


def exactly(x: Tensor, y: Tensor, *args: Any, **settings: Any) -> tuple[Tensor, Tensor]:
    x, y = x.double(), y.double()
    origin = torch.cat([x, y], -2).mean(-2, keepdim=True).detach()
    return plain(x - origin, y - origin, *args, **settings)


def magnitudes(x: Tensor, y: Tensor, kinds: Sequence[str], params: Tensor, weights: Tensor) -> list[float]:
    """What the value and its first and second derivatives by points are sums of, had every term the same sign, and
    each squared distance the error of the squares that it is the difference of."""
    points = torch.cat([x.double(), y.double()], -2)
    points = points - points.mean(-2, keepdim=True)
    squares, n = points.square().sum(-1), x.shape[-2]
    s = (squares[:, None] + squares[None, :] - 2 * points @ points.T).clamp(min=0)
    noise = squares[:, None] + squares[None, :]
    size = points.abs().amax(1) if points.numel() else squares
    block = torch.tensor([0, 1])[torch.tensor([0] * n + [1] * (len(points) - n))]
    same = (block[:, None] == block[None, :])[..., None]
    weight = torch.where(same, weights.abs()[block][:, None, :], weights.abs()[2])
    result = torch.zeros(3, dtype=torch.float64)
    for c, (kind, theta) in enumerate(zip(kinds, params, strict=True)):
        k, slope, bend = terms(s, kind, theta[0])
        reach, w = size[:, None] + size[None, :], weight[..., c]
        result[0] += (w * (k + slope * noise)).sum()
        result[1] += (2 * w * (slope + bend * noise) * reach).sum(1).max()
        result[2] += (8 * w * (slope + bend * (noise + reach**2 * x.shape[-1])) * reach).sum(1).max()
    return result.tolist()


def derivatives(
    function: Callable[..., Tensor], inputs: Sequence[Tensor], along: Sequence[Tensor]
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Value, its gradients, and the gradients of <gradients, along>."""
    inputs = [leaf(x) for x in inputs]
    value = function(*inputs)
    first = torch.autograd.grad(value.sum(), inputs, create_graph=True)
    total = sum((g * u.to(g.dtype)).sum() for g, u in zip(first, along, strict=True))
    return value.detach(), [g.detach() for g in first], list(torch.autograd.grad(total, inputs))


def one_sweep(function: Callable[..., Tensor], inputs: Sequence[Tensor]) -> list[Tensor]:
    """The gradients that come out of the forward sweep."""
    inputs = [leaf(x) for x in inputs]
    return list(torch.autograd.grad(function(*inputs).sum(), inputs))


def mixture(kinds: Sequence[str], D: int) -> tuple[Tensor, Tensor]:
    """Parameters at which neighbours are neither all alike nor all unrelated; weights of the blocks and components."""
    scale = max(D, 1)
    params = [
        (scale**0.5 * (1 + c / 2),) if kind == "rbf" else (2.0 * scale / (1 + c),) for c, kind in enumerate(kinds)
    ]
    weights = torch.tensor([[1.0], [0.7], [-1.8]]) * torch.linspace(1.0, 0.4, len(kinds))
    return torch.tensor(params, dtype=torch.float64), weights.double()


def assert_parity(x: Tensor, y: Tensor, kinds: Sequence[str], where: str, diagonal: bool = False) -> None:
    params, weights = mixture(kinds, x.shape[-1])
    along = [samples(t.shape, x.dtype, seed=20 + k) for k, t in enumerate((x, y))]

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return kernel_sums(x, y, kinds, params, weights, diagonal=diagonal)[0]

    wide = torch.promote_types(x.dtype, torch.float32)
    value, first, second = derivatives(ours, (x, y), along)
    by_torch = derivatives(
        lambda x, y: plain(x.to(wide), y.to(wide), kinds, params, weights, diagonal)[0], (x, y), along
    )
    exact = derivatives(
        lambda x, y: exactly(x, y, kinds, params, weights, diagonal=diagonal)[0], (x.double(), y.double()), along
    )
    sizes = magnitudes(x, y, kinds, params, weights)
    assert value.dtype == wide and {t.dtype for t in (*first, *second)} == {x.dtype}
    assert_as_good_as_torch(value, by_torch[0], exact[0], f"value, {where}", sizes[0])
    for each in (first, one_sweep(ours, (x, y))):
        for result, rough, good in zip(each, by_torch[1], exact[1], strict=True):
            assert_as_good_as_torch(result, rough, good, f"first derivative, {where}", sizes[1])
    for result, rough, good in zip(second, by_torch[2], exact[2], strict=True):
        assert_as_good_as_torch(result, rough, good, f"second derivative, {where}", sizes[2])


@pytest.mark.parity
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype, kind: str) -> None:
    for index, (N, M, D) in enumerate(SIZES):
        x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 0.5
        assert_parity(x, y, (kind,), f"{N}, {M}, {D}, {kind}", diagonal=index % 2 == 1)


@pytest.mark.parity
@pytest.mark.parametrize("layout", ["offset", "columns", "rows", "transposed", "expanded", "expanded_batch"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_layouts(native: None, dtype: torch.dtype, layout: str) -> None:
    x, y = samples((37, 11), dtype, layout, seed=1), samples((101, 11), dtype, layout, seed=2)
    assert_parity(x, y, KINDS, layout)


@settings(max_examples=30)
@given(
    N=st.integers(0, 120),
    M=st.integers(0, 120),
    D=st.integers(0, 40),
    dtype=st.sampled_from(DTYPES),
    scale=st.sampled_from([0.03, 1.0, 5.0]),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    diagonal=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_drawn_sizes(
    N: int, M: int, D: int, dtype: torch.dtype, scale: float, kinds: list[str], diagonal: bool, seed: int
) -> None:
    x, y = samples((N, D), dtype, seed=seed) * scale, samples((M, D), dtype, seed=seed + 1) * scale
    for name in each_backend() if N + M else ():
        assert_parity(x, y, kinds, f"{name} {N}, {M}, {D}, {kinds}", diagonal)


def test_known_sums_of_four_points(backend: str) -> None:
    x, y = torch.tensor([[0.0], [1.0]], dtype=torch.float64), torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    _, sums = kernel_sums(x, y, ("inverse_multiquadric",), (1.0,), (1.0, 1.0, 1.0))
    # s: 1 in x; 9 in y; between them 0, 9, 1, 4.
    expected = torch.tensor([[2 / 2], [2 / 10], [1 + 1 / 10 + 1 / 2 + 1 / 5]], dtype=torch.float64)
    torch.testing.assert_close(sums, expected, rtol=KNOWN, atol=0)
    value, with_diagonal = kernel_sums(x, y, ("rbf",), (1.0,), (1.0, 2.0, -1.0), diagonal=True)
    e = torch.exp(-torch.tensor([0.5, 4.5, 0.0, 2.0], dtype=torch.float64))
    expected = torch.stack([2 + 2 * e[0], 2 + 2 * e[1], e[2] + e[1] + e[0] + e[3]])[:, None]
    torch.testing.assert_close(with_diagonal, expected, rtol=KNOWN, atol=0)
    torch.testing.assert_close(value, expected[0, 0] + 2 * expected[1, 0] - expected[2, 0], rtol=KNOWN, atol=0)


def test_no_points(backend: str) -> None:
    for N, M, D in [(0, 3, 2), (3, 0, 2), (0, 0, 2), (1, 0, 2), (2, 2, 0)]:
        x, y = leaf(torch.ones(N, D)), leaf(torch.ones(M, D))
        value, sums = kernel_sums(x, y, ("rbf",), (1.0,), (1.0, 1.0, 1.0))
        assert sums[:, 0].tolist() == [N * (N - 1), M * (M - 1), N * M] and value.item() == sums.sum().item()
        first = torch.autograd.grad(value, (x, y), create_graph=True)
        assert [g.shape for g in first] == [x.shape, y.shape] and all(g.eq(0).all() for g in first)
        torch.autograd.grad(sum(g.sum() for g in first), (x, y))


CASES = [((), ("rbf",)), ((), ("inverse_multiquadric", "rbf", "inverse_multiquadric")), ((2,), ("rbf", "rbf"))]


def double_inputs(problems: tuple[int, ...], kinds: Sequence[str]) -> list[Tensor]:
    params = torch.tensor([[0.9 + 0.4 * c] for c in range(len(kinds))], dtype=torch.float64)
    x, y = samples((*problems, 4, 3), torch.float64, seed=1), samples((*problems, 3, 3), torch.float64, seed=2) + 0.2
    return [leaf(t) for t in (x, y, samples((3, len(kinds)), torch.float64, seed=3), params)]


@pytest.mark.parametrize("rows", [(0, -1), (1, 6)])
@pytest.mark.parametrize(("problems", "kinds"), CASES)
def test_gradcheck_and_gradgradcheck(
    backend: str, problems: tuple[int, ...], kinds: Sequence[str], rows: tuple[int, int]
) -> None:
    for diagonal in (False, True):

        def both(x: Tensor, y: Tensor, weights: Tensor, params: Tensor, d: bool = diagonal) -> tuple[Tensor, Tensor]:
            return kernel_sums(x, y, kinds, params, weights, diagonal=d, begin=rows[0], end=rows[1])

        inputs = double_inputs(problems, kinds)
        for function in (both, lambda *args: both(*args)[0], lambda *args: both(*args)[0] ** 2):
            # fast_mode takes other directions than the slow check; the value alone is the route with saved gradients.
            assert gradcheck(function, inputs, fast_mode=function is both)
            assert gradgradcheck(function, inputs, fast_mode=function is both)


def test_gradcheck_of_the_shortest_way(backend: str) -> None:
    x, y, *_ = double_inputs((), KINDS)
    for inputs in ((x, y), (x, y.detach()), (x.detach(), y)):
        for function in (
            lambda x, y: weighted_kernel_sum(x, y, KINDS, (0.9, 1.3), (1.0, 0.5, -1.7)),
            lambda x, y: weighted_kernel_sum(x, y, KINDS, (0.9, 1.3), (1.0, 0.5, -1.7), diagonal=True) ** 2,
        ):
            assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


@pytest.mark.parametrize(("problems", "kinds"), CASES)
def test_gradcheck_of_the_registered_operators(native: None, problems: tuple[int, ...], kinds: Sequence[str]) -> None:
    operators = torch.ops.wgan_kernels
    codes, shapes = [KINDS.index(kind) for kind in kinds], [1.0] * len(kinds)
    x, y, weights, params = double_inputs(problems, kinds)

    def forward(needs: int) -> Callable[..., Any]:
        return lambda x, y, weights, params: operators.kernel_sums.default(
            x, y, weights, params, codes, shapes, False, 0, -1, False, needs
        )[:2]

    def backward(grad_sums: Tensor, x: Tensor, y: Tensor, params: Tensor) -> Any:
        return operators.kernel_sums_backward.default(grad_sums, x, y, params, codes, shapes, False, 0, -1, False, 7)

    for needs in (7, 0):  # gradients saved by the forward operator, and found by the backward one
        assert gradcheck(forward(needs), (x, y, weights, params))
        assert gradcheck(lambda *args, n=needs: forward(n)(*args)[0], (x, y, weights, params))
        assert gradgradcheck(forward(needs), (x, y, weights, params), fast_mode=True)
    assert gradcheck(backward, (leaf(samples((*problems, 3, len(kinds)), torch.float64)), x, y, params))


def test_opcheck(native: None) -> None:
    operators = torch.ops.wgan_kernels
    for dtype, layout, problems in [
        (torch.float32, "columns", ()),
        (torch.bfloat16, "rows", (2,)),
        (torch.float64, "offset", ()),
    ]:
        x, y = samples((*problems, 6, 5), dtype, layout), samples((*problems, 4, 5), dtype, layout, seed=1)
        params, weights = mixture(KINDS, 5)
        grad_sums = samples((*problems, 3, 2), torch.float64)
        for needs in (0, 1, 7):
            settings = ([0, 1], [1.0, 1.0], False, 0, -1, False, needs)
            for operator, arguments in [
                (operators.kernel_sums, (leaf(x), leaf(y), leaf(weights), leaf(params))),
                (operators.kernel_sums_backward, (leaf(grad_sums), leaf(x), leaf(y), leaf(params))),
                (operators.kernel_sums_double_backward, (x, None, params, grad_sums, x, y, params)),
            ]:
                results = torch.library.opcheck(operator.default, (*arguments, *settings))
                assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_third_derivative_raises(native: None) -> None:
    for function in (
        lambda x, y: kernel_sums(x, y, ("rbf",), (1.0,), (1.0, 1.0, -2.0))[0],
        lambda x, y: weighted_kernel_sum(x, y, ("rbf",), (1.0,), (1.0, 1.0, -2.0)),
    ):
        x, y, *_ = double_inputs((), KINDS)
        (first,) = torch.autograd.grad(function(x, y), x, create_graph=True)
        (second,) = torch.autograd.grad(first.sum() + first.square().sum(), x, create_graph=True)
        with pytest.raises(NotImplementedError, match="third derivatives of kernel_sums are not supported"):
            torch.autograd.grad(second.sum(), x)


def test_functions_of_the_value(backend: str) -> None:
    """A gradient left behind by the forward sweep must not pass for a constant."""
    points, others = samples((9, 4), torch.float64, seed=1), samples((7, 4), torch.float64, seed=2)
    theta = samples((4, 4), torch.float64, seed=3)
    params, weights = mixture(("rbf",), 4)
    losses = [
        lambda v, t: v**2,
        lambda v, t: v.exp() + t.square().sum() * 3,
        lambda v, t: (v * t.detach()).sum() + v.sqrt() * t.sin().sum(),
    ]
    for loss in losses:
        results = []
        for value in (
            lambda x, y: weighted_kernel_sum(x, y, ("rbf",), (2.0,), tuple(weights.abs()[:, 0].tolist())),
            lambda x, y: kernel_sums(x, y, ("rbf",), params, weights.abs())[0],
            lambda x, y: exactly(x, y, ("rbf",), params, weights.abs())[0],
        ):
            t = leaf(theta)
            result = loss(value((points @ t).tanh(), others), t)
            (first,) = torch.autograd.grad(result, t, create_graph=True)
            (second,) = torch.autograd.grad(first.square().sum(), t)
            results.append((result.detach(), first.detach(), second))
        for other in results[:2]:
            for ours, expected in zip(other, results[2], strict=True):
                assert_same_by_another_route(ours, expected)
                assert expected.abs().max() > 1e-3


@pytest.mark.parity
def test_ranges_of_rows_add_up(backend: str) -> None:
    dtype = torch.float64
    x, y = samples((130, 5), dtype, seed=1), samples((210, 5), dtype, seed=2)
    params, weights = mixture(KINDS, 5)
    along = [samples(t.shape, dtype, seed=5) for t in (x, y)]

    def call(begin: int, end: int) -> tuple[Tensor, ...]:
        function = lambda x, y: kernel_sums(x, y, KINDS, params, weights, begin=begin, end=end, diagonal=True)  # noqa: E731
        value, first, second = derivatives(lambda x, y: function(x, y)[0], (x, y), along)
        return value, function(x, y)[1], *first, *second, *one_sweep(lambda x, y: function(x, y)[0], (x, y))

    whole = call(0, -1)
    for cuts in [
        (0, 340),
        (0, 1, 340),
        (0, 96, 130, 131, 300, 340),
        (0, 0, 50, 129, 130, 226, 340, 340),
        (0, 200, 340),
    ]:
        parts = [call(begin, end) for begin, end in zip(cuts, cuts[1:])]
        for entry, together in zip(whole, map(sum, zip(*parts, strict=True)), strict=True):
            assert_same_by_another_route(together, entry)


def test_each_range_equals_the_reference(native: None) -> None:
    x, y = samples((101, 3), torch.float64, seed=1), samples((100, 3), torch.float64, seed=2)
    params, weights = mixture(KINDS, 3)
    for begin, end in [(0, 0), (0, 1), (5, 6), (7, 99), (100, 102), (101, 201), (201, 201), (150, -1)]:
        results = [kernel_sums(x, y, KINDS, params, weights, begin=begin, end=end)]
        with use_backend("reference"):
            results.append(kernel_sums(x, y, KINDS, params, weights, begin=begin, end=end))
        for ours, expected in zip(*results, strict=True):
            assert_same_by_another_route(ours, expected)


def test_a_large_call_is_made_range_by_range(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        x, y = samples((2, 150, 7), dtype, seed=1), samples((2, 250, 7), dtype, seed=2)
        along = [samples(t.shape, dtype, seed=5) for t in (x, y)]
        params, weights = mixture(KINDS, 7)
        function = lambda x, y: kernel_sums(x, y, KINDS, params, weights)[0]  # noqa: E731
        at_once = derivatives(function, (x, y), along), one_sweep(function, (x, y))
        monkeypatch.setattr(module, "_WORK_PER_CALL", 5e5)
        monkeypatch.setattr(module, "_ONE_CALL", 0)
        in_parts = derivatives(function, (x, y), along), one_sweep(function, (x, y))
        monkeypatch.undo()
        flat = [[v, *f, *s, *o] for (v, f, s), o in (at_once, in_parts)]
        for whole, together in zip(*flat, strict=True):
            if dtype in NARROW:
                torch.testing.assert_close(
                    together, whole, rtol=ROUNDED_TWICE * torch.finfo(dtype).eps, atol=HALF_WIDTH_PARTS
                )
            else:
                assert_same_by_another_route(together, whole)


def test_ranges_share_the_pairs() -> None:
    for rows, begin, end, calls in [(1000, 0, 1000, 4), (5000, 96, 4000, 7), (100, 0, 100, 9), (10, 3, 3, 2)]:
        ranges = list(module._row_ranges(rows, begin, end, calls))
        assert ranges[0][0] == begin and ranges[-1][1] == end
        assert all(a[1] == b[0] and a[0] < a[1] for a, b in zip(ranges, ranges[1:]))
    shares = [(5000 - a) ** 2 - (5000 - b) ** 2 for a, b in module._row_ranges(5000, 0, 5000, 5)]
    assert max(shares) < 1.2 * 5000**2 / 5


def test_batches_are_their_problems(native: None) -> None:
    x, y = samples((3, 100, 6), torch.float32, seed=1), samples((3, 40, 6), torch.float32, seed=2)
    params, weights = mixture(KINDS, 6)
    each_weights = torch.stack([weights, 2 * weights, -weights])
    for chosen in (weights, each_weights):
        inputs = leaf(x), leaf(y), leaf(params)
        value, sums = kernel_sums(inputs[0], inputs[1], KINDS, inputs[2], chosen)
        outer = torch.tensor([1.0, -0.5, 3.0])
        first = torch.autograd.grad((value * outer).sum(), inputs)
        total = torch.zeros_like(params)
        for b in range(3):
            one = leaf(x[b]), leaf(y[b]), leaf(params)
            its_value, its_sums = kernel_sums(one[0], one[1], KINDS, one[2], chosen if chosen is weights else chosen[b])
            assert_same_bits(value[b], its_value)
            assert_same_bits(sums[b], its_sums)
            grads = torch.autograd.grad(its_value * outer[b], one)
            assert_same_bits(first[0][b], grads[0])
            assert_same_bits(first[1][b], grads[1])
            total += grads[2]
        torch.testing.assert_close(first[2], total, rtol=KNOWN * 100, atol=KNOWN * 100)


def test_distances_survive_far_from_the_origin(backend: str) -> None:
    """Mean 100, standard deviation 0.01: in float32 the squares alone are off by more than the distances."""
    x, y = 100 + 0.01 * samples((60, 8), torch.float64, seed=1), 100 + 0.01 * samples((50, 8), torch.float64, seed=2)
    along = [samples(t.shape, torch.float64, seed=3) for t in (x, y)]
    params = torch.tensor([[0.03], [0.001]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.3], [-1.5, 1.0]], dtype=torch.float64)
    for dtype in (torch.float32, torch.float64):
        points = x.to(dtype), y.to(dtype)  # what rounding the points themselves does is not our error
        ours = derivatives(lambda x, y: kernel_sums(x, y, KINDS, params, weights)[0], points, along)
        exact = derivatives(lambda x, y: exactly(x, y, KINDS, params, weights)[0], [p.double() for p in points], along)
        for result, expected in zip([ours[0], *ours[1], *ours[2]], [exact[0], *exact[1], *exact[2]], strict=True):
            error = (result.double() - expected).abs().max() / expected.abs().max()
            assert error < FAR_FROM_ORIGIN[dtype], (dtype, error)


def test_tight_clusters_far_apart(native: None) -> None:
    """Where centring cannot help float32, distances are taken in float64."""
    x = 0.01 * samples((40, 4), torch.float32, seed=1)
    x[20:] += 1000.0
    y = x + 0.01 * samples((40, 4), torch.float32, seed=2)
    for kind, theta in (("rbf", 0.02), ("inverse_multiquadric", 0.001)):
        params, weights = torch.tensor([[theta]], dtype=torch.float64), torch.tensor([[1.0], [0.5], [-1.0]]).double()
        along = [samples(t.shape, torch.float32, seed=3) for t in (x, y)]
        ours = derivatives(lambda x, y: kernel_sums(x, y, (kind,), params, weights)[0], (x, y), along)
        exact = derivatives(lambda x, y: exactly(x, y, (kind,), params, weights)[0], (x.double(), y.double()), along)
        for result, expected in zip([ours[0], *ours[1], *ours[2]], [exact[0], *exact[1], *exact[2]], strict=True):
            assert (result.double() - expected).abs().max() <= FAR_APART * expected.abs().max()


@pytest.mark.parametrize("dtype", DTYPES)
def test_coincident_points(backend: str, dtype: torch.dtype) -> None:
    x = samples((6, 3), dtype, seed=1)
    x[1] = x[0]
    y = torch.cat([x[:2], samples((3, 3), dtype, seed=2)])
    for points in ((x, y), (x, x.clone()), (x[:1].expand(5, 3), x[:1].expand(4, 3))):
        along = [samples(t.shape, dtype, seed=3) for t in points]
        for kinds in (KINDS, ("rbf",)):
            params, weights = mixture(kinds, 3)
            ours = derivatives(lambda x, y: kernel_sums(x, y, kinds, params, weights)[0], points, along)
            exact = derivatives(
                lambda x, y: exactly(x, y, kinds, params, weights)[0],
                [p.double() for p in points],
                along,
            )
            for result, expected in zip([ours[0], *ours[1], *ours[2]], [exact[0], *exact[1], *exact[2]], strict=True):
                assert result.isfinite().all()
                error = (result.double() - expected).abs().max().item()
                assert error <= COINCIDENT * torch.finfo(result.dtype).eps * max(1.0, expected.abs().max().item())


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_propagate(backend: str, dtype: torch.dtype, bad: float) -> None:
    for kind in KINDS:
        for N in (3, 100):
            x, y = samples((N, 5), dtype, seed=1), samples((4, 5), dtype, seed=2)
            x[1, 2] = bad
            value, first, second = derivatives(
                lambda x, y: kernel_sums(x, y, (kind,), (1.0,), (1.0, 1.0, -2.0))[0],
                (x, y),
                (x, y),
            )
            assert value.isnan() and all(g.isnan().any() for g in (*first, *second))


def test_kernels_of_far_points_vanish(native: None) -> None:
    x, y = torch.zeros(3, 2), torch.full((2, 2), 1e4)
    value, first, second = derivatives(
        lambda x, y: kernel_sums(x, y, ("rbf",), (1.0,), (0.0, 0.0, 1.0))[0], (x, y), (x + 1, y)
    )
    assert value.item() == 0 and all(g.eq(0).all() for g in (*first, *second))


def test_same_bits_twice_and_for_any_number_of_threads(native: None, one_and_two_threads: tuple[int, int]) -> None:
    for shape, others in (((700, 20), (500, 20)), ((7, 100, 3), (7, 90, 3)), ((900, 70), (30, 70))):
        x, y = samples(shape, torch.float32, seed=1), samples(others, torch.float32, seed=2)
        params, weights = mixture(KINDS, shape[-1])
        results = []
        for threads in one_and_two_threads * 2:
            torch.set_num_threads(threads)
            function = lambda x, y: kernel_sums(x, y, KINDS, params, weights)[0]  # noqa: E731
            value, first, second = derivatives(function, (x, y), (x, y))
            results.append([value, *first, *second, *one_sweep(function, (x, y))])
        for other in results[1:]:
            for ours, same in zip(other, results[0], strict=True):
                assert_same_bits(ours, same)


@pytest.mark.parametrize("problems", [(), (2,)])
def test_fake_tensors_have_the_strides_of_real_ones(native: None, problems: tuple[int, ...]) -> None:
    x, y = samples((*problems, 5, 3), torch.bfloat16, "columns"), samples((*problems, 4, 3), torch.bfloat16)
    params, weights = mixture(KINDS, 3)

    def everything(*inputs: Tensor) -> list[tuple[Any, ...]]:
        value, first, second = derivatives(
            lambda x, y, p: kernel_sums(x, y, KINDS, p, inputs[3])[0], inputs[:3], inputs[:3]
        )
        return [form(t) for t in (value, *first, *second, *one_sweep(
            lambda x, y, p: kernel_sums(x, y, KINDS, p, inputs[3])[0], inputs[:3]))]  # fmt: skip

    real = everything(x, y, params, weights)
    with torch._subclasses.FakeTensorMode() as mode:
        fake = everything(*[mode.from_tensor(t) for t in (x, y, params, weights)])
    assert fake == real


def test_compiled_equals_eager(backend: str) -> None:
    def function(x: Tensor, y: Tensor) -> Tensor:
        return weighted_kernel_sum(x * 2, y, KINDS, (2.0, 8.0), (1.0, 1.0, -2.0)).exp()

    compiled = compile_once(function, backend)
    for dtype in (torch.float32, torch.float64):
        x, y = samples((9, 4), dtype, seed=1), samples((7, 4), dtype, seed=2)
        pairs = [(leaf(x), leaf(y)) for _ in range(2)]
        values = compiled(*pairs[0]), function(*pairs[1])
        assert_same_by_another_route(*values)
        grads = [torch.autograd.grad(value, pair) for value, pair in zip(values, pairs, strict=True)]
        for ours, expected in zip(*grads, strict=True):
            assert_same_by_another_route(ours, expected)


def test_torch_func_transforms(backend: str) -> None:
    x, y = samples((2, 5, 3), torch.float64, seed=1), samples((4, 3), torch.float64, seed=2)
    params, weights = mixture(KINDS, 3)
    function = lambda x: kernel_sums(x, y, KINDS, params, weights)[0]  # noqa: E731
    each = torch.func.vmap(torch.func.grad(function))(x)
    for b in range(2):
        (expected,) = one_sweep(function, (x[b],))
        assert_same_by_another_route(each[b], expected)


def test_inference_mode_leaves_nothing_behind(native: None) -> None:
    """Numbers made into tensors under inference mode, and kept, could not be saved for a backward pass later."""
    x, y = samples((5, 3), torch.float32), samples((4, 3), torch.float32, seed=1)
    with torch.inference_mode():
        expected = weighted_kernel_sum(x, y, ("rbf",), (1.2345,), (0.1, 0.2, -0.3))
    value = weighted_kernel_sum(leaf(x), y, ("rbf",), (1.2345,), (0.1, 0.2, -0.3))
    value.backward()
    assert_same_bits(value.detach(), expected)


def test_half_width_gradients_are_scaled_before_they_are_rounded(backend: str) -> None:
    """Loss scaling multiplies gradients that float16 could not hold."""
    x, y = samples((200, 4), torch.float16, seed=1), samples((200, 4), torch.float16, seed=2)
    w = (1 / (200 * 199), 1 / (200 * 199), -2 / 200**2)
    scaled, full = leaf(x), leaf(x.double())
    (weighted_kernel_sum(scaled, y, ("rbf",), (300.0,), w) * 2.0**24).backward()
    (weighted_kernel_sum(full, y.double(), ("rbf",), (300.0,), w) * 2.0**24).backward()
    assert full.grad.abs().max() / 2.0**24 < torch.finfo(torch.float16).smallest_normal
    error = (scaled.grad.double() - full.grad).abs().max() / full.grad.abs().max()
    assert error < ROUNDED_TWICE * torch.finfo(torch.float16).eps
