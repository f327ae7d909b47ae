"""The Triton kernels of kernel_sums: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import kernel_formulas as formulas
import pytest
import torch
import triton
import triton.language as tl
from cases import DTYPES, assert_same_bits, leaf, samples
from kernel_formulas import Mixture, mixture_of
from test_kernel_sums import (  # noqa: F401 - tests that run as they are
    KINDS,
    derivatives,
    exactly,
    mixture,
    one_sweep,
    plain,
    test_kernels_of_far_points_vanish,
    test_known_sums_of_four_points,
    test_no_points,
    test_third_derivative_raises,
)
from tolerances import (
    COINCIDENT,
    FAR_APART,
    FAR_FROM_ORIGIN,
    KERNEL_VALUE,
    ROUNDED_TWICE,
    assert_as_good_as_torch,
    assert_same_by_another_route,
)
from torch import Tensor

from wgan_kernels import use_backend
from wgan_kernels._triton import kernel_sums as module
from wgan_kernels._triton._kernel_functions import kernel_terms
from wgan_kernels._triton._pair_finish import FINISH_ELEMENTS
from wgan_kernels._triton._tiles import BLOCK, FEATURES
from wgan_kernels.ops._weighted_kernel_sum import weighted_kernel_sum
from wgan_kernels.ops.kernel_sums import kernel_sums

# N, M, D, and of what. In float64 features are gone through one by one, whatever their number.
SIZES = {
    torch.float64: [
        ((1, 1, 1), ("laplacian", "polynomial")),
        ((BLOCK + 1, BLOCK - 1, 2), ("matern32", "polynomial", "energy", "rational_quadratic")),
        ((2, 3, FEATURES + 1), ("inverse_multiquadric", "polynomial", "matern52", "rbf")),
    ],
    torch.float32: [
        ((1, 1, 1), ("polynomial", "rbf", "inverse_multiquadric")),
        ((BLOCK + 1, BLOCK - 1, 3), ("rational_quadratic", "matern52")),
        ((BLOCK, 2, FEATURES), ("polynomial",)),
        ((2, BLOCK + 1, FEATURES + 1), ("matern32", "polynomial")),
    ],
    torch.bfloat16: [
        ((BLOCK - 1, BLOCK + 1, 5), ("rbf", "polynomial")),
        ((3, 2, FEATURES + 1), ("matern52", "energy")),
    ],
    torch.float16: [((BLOCK + 1, 2, FEATURES - 1), ("rational_quadratic", "polynomial")), ((1, 3, 1), ("laplacian",))],
}


@pytest.fixture(autouse=True)
def _tiles_are_not_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes its time for every program."""
    monkeypatch.setattr(module, "PROGRAMS", 1)


def assert_parity(x: Tensor, y: Tensor, of: Mixture, where: str, diagonal: bool) -> None:
    C = len(of.kinds)
    weights = (torch.tensor([[1.0], [0.7], [-1.8]]) * torch.linspace(1.0, 0.4, C)).double()
    along = [samples(t.shape, x.dtype, seed=20 + k) for k, t in enumerate((x, y))]
    wide = torch.promote_types(x.dtype, torch.float32)

    def ours(x: Tensor, y: Tensor) -> Tensor:
        return kernel_sums(x, y, of.kinds, of.params, weights, shapes=of.shapes, diagonal=diagonal)[0]

    def by_torch(x: Tensor, y: Tensor) -> Tensor:
        return (weights.to(wide) * formulas.sums(x.to(wide), y.to(wide), of, diagonal, formulas.in_squares)).sum()

    def exact(x: Tensor, y: Tensor) -> Tensor:
        return (weights * formulas.sums(x, y, of, diagonal)).sum()

    value, first, second = derivatives(ours, (x, y), along)
    rough, good = derivatives(by_torch, (x, y), along), derivatives(exact, (x.double(), y.double()), along)
    sizes = formulas.magnitudes(x, y, of, weights)
    assert value.dtype == wide and {t.dtype for t in (*first, *second)} == {x.dtype}
    assert_as_good_as_torch(value, rough[0], good[0], f"value, {where}", sizes[0])
    for results, order in ((first, 1), (one_sweep(ours, (x, y)), 1), (second, 2)):
        for result, one, other in zip(results, rough[order], good[order], strict=True):
            assert_as_good_as_torch(result, one.nan_to_num(0.0), other, f"derivative {order}, {where}", sizes[order])


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    for index, ((N, M, D), kinds) in enumerate(SIZES[dtype]):
        x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 0.5
        assert_parity(x, y, mixture_of(*kinds, scale=D), f"{N}, {M}, {D}, {kinds}", diagonal=index % 2 == 1)


@triton.jit
def _terms_kernel(s, theta, shape, out, CODE: tl.constexpr, N: tl.constexpr):
    at = tl.arange(0, N)
    k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(tl.load(s + at), tl.load(theta), tl.load(shape), CODE)
    tl.store(out + at, k)
    tl.store(out + N + at, k_s)
    tl.store(out + 2 * N + at, k_ss)
    tl.store(out + 3 * N + at, k_t)
    tl.store(out + 4 * N + at, k_st)
    tl.store(out + 5 * N + at, k_tt)


@pytest.mark.parametrize("kind", formulas.KINDS)
def test_every_term_of_a_kernel_function(kind: str) -> None:
    """At s up to the scale over which the function changes; as far as its formulas go, not the device's functions."""
    s, theta = torch.linspace(0, 1.0, 1024, dtype=torch.float64)[1:].square(), 1.3
    s = torch.cat([s.new_zeros(1), s])
    for shape in {"rational_quadratic": (0.4, 1.0, 200.0), "polynomial": (1, 2, 4)}.get(kind, (1,)):
        code = formulas.KINDS.index(kind) + (16 * shape if kind == "polynomial" else 0)
        numbers = torch.tensor([theta], dtype=torch.float64), torch.tensor([shape], dtype=torch.float64)
        for dtype in (torch.float64, torch.float32):
            out, given = torch.empty(6, len(s), dtype=dtype), s.to(dtype)
            _terms_kernel[(1,)](given, *numbers, out, CODE=code, N=len(s))
            expected = formulas.terms(kind, given.double(), theta, shape)
            # At 0 what has a cusp takes 0, which differentiating its formula does not always find.
            error = ((out[0].double() - expected[0]) / expected[0])[1:].abs().max()
            assert error <= KERNEL_VALUE[dtype] * torch.finfo(dtype).eps, (shape, dtype, error)
            assert out.isfinite().all()
            for ours, exact in zip(out[1:], expected[1:], strict=True):
                assert_same_by_another_route(
                    ours[1:] * s[1:].to(dtype), (exact[1:] * s[1:]).to(dtype), f"{kind}, {shape}"
                )


def everything(x: Tensor, y: Tensor, of: Mixture, weights: Tensor, wanted: str, **settings: int) -> list[Tensor]:
    """Value, sums, gradients of both by what is wanted, and of the value alone, which are saved by the forward sweep,
    and second derivatives."""
    inputs = [leaf(t) if name in wanted else t for name, t in zip("xypw", (x, y, of.params, weights))]
    leaves = [each for each in inputs if each.requires_grad]

    def call() -> tuple[Tensor, Tensor]:
        return kernel_sums(inputs[0], inputs[1], of.kinds, inputs[2], inputs[3], shapes=of.shapes, **settings)

    value, sums = call()
    total = value.sum() + (sums * samples(sums.shape, torch.float64, seed=6)).sum()
    first = torch.autograd.grad(total, leaves, create_graph=True)
    saved = torch.autograd.grad(call()[0].sum(), leaves)
    along = [samples(g.shape, torch.float64, seed=7) for g in first]
    second = torch.autograd.grad(sum([(g * u).sum() for g, u in zip(first, along)]), leaves, allow_unused=True)
    return [t.detach() for t in (value, sums, *first, *saved, *second) if t is not None]


B = BLOCK


@pytest.mark.parametrize(
    ("wanted", "N", "M", "kinds", "rows", "diagonal"),
    [
        ("x", B + 2, B + 1, ("polynomial", "matern32"), (0, -1), True),
        ("y", B + 2, B + 1, ("laplacian", "rational_quadratic"), (3, -1), False),
        ("p", B + 2, B + 1, ("polynomial",), (0, B + 2), True),
        ("xy", B + 2, B + 1, ("matern52", "polynomial"), (B - 1, B), True),
        ("xp", B + 2, B + 1, ("inverse_multiquadric", "rational_quadratic"), (B + 3, B + 5), False),
        ("xypw", 4, 3, ("energy", "polynomial", "rbf"), (1, 6), True),
    ],
)
def test_what_is_wanted_of_a_range_of_rows_equals_the_reference(
    backend: str, wanted: str, N: int, M: int, kinds: tuple[str, ...], rows: tuple[int, int], diagonal: bool
) -> None:
    C = len(kinds)
    problems = (2,) if C == 3 else ()
    x, y = samples((*problems, N, 2), torch.float64, seed=1), samples((*problems, M, 2), torch.float64, seed=2)
    weights, settings = samples((*problems, 3, C), torch.float64, seed=3), (rows[0], rows[1], diagonal)
    results = []
    for name in (backend, "reference"):
        with use_backend(name):
            named = dict(zip(("begin", "end", "diagonal"), settings))
            results.append(everything(x, y, mixture_of(*kinds), weights, wanted, **named))
    for one, other in zip(*results, strict=True):
        assert_same_by_another_route(one, other)


def test_shares_of_a_tile_add_up_and_bits_are_the_same_twice(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples((BLOCK + 2, 3), torch.float32, seed=1), samples((2, 3), torch.float32, seed=2)
    weights, results = samples((3, 1), torch.float64, seed=3), []
    for programs in (1, 2 * 3, 2 * 3):
        monkeypatch.setattr(module, "PROGRAMS", programs)
        of = mixture_of("polynomial", scale=3)
        results.append(everything(x, y, of, weights, "xyp", diagonal=True))
    for whole, shared, again in zip(*results, strict=True):
        assert_same_by_another_route(shared.double(), whole.double())
        assert_same_bits(shared, again)


def assert_relative(points: tuple[Tensor, Tensor], params: Tensor, weights: Tensor, allowed: float) -> None:
    along = [samples(t.shape, points[0].dtype, seed=3) for t in points]
    ours = derivatives(lambda x, y: kernel_sums(x, y, KINDS, params, weights)[0], points, along)
    exact = derivatives(lambda x, y: exactly(x, y, KINDS, params, weights)[0], [p.double() for p in points], along)
    for result, expected in zip([ours[0], *ours[1], *ours[2]], [exact[0], *exact[1], *exact[2]], strict=True):
        assert (result.double() - expected).abs().max() <= allowed * expected.abs().max()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_distances_survive_far_from_the_origin(backend: str, dtype: torch.dtype) -> None:
    points = [(100 + 0.01 * samples((n, 3), torch.float64, seed=n)).to(dtype) for n in (20, 17)]
    params = torch.tensor([[0.03], [0.001]], dtype=torch.float64)
    weights = torch.tensor([[1.0, 0.5], [1.0, 0.3], [-1.5, 1.0]], dtype=torch.float64)
    assert_relative(tuple(points), params, weights, FAR_FROM_ORIGIN[dtype])


def test_tight_clusters_far_apart(backend: str) -> None:
    """Where centring cannot help float32, distances are taken in float64, by the second launch."""
    x = 0.01 * samples((20, 2), torch.float32, seed=1)
    x[10:] += 1000.0
    y = x[:13] + 0.01 * samples((13, 2), torch.float32, seed=2)
    params, weights = torch.tensor([[0.02], [0.001]]).double(), torch.tensor([[1.0], [0.5], [-1.0]]).double()
    assert_relative((x, y), params, weights.expand(3, 2), FAR_APART)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_products_do_not_cost_distances_their_digits_far_from_the_origin(backend: str, dtype: torch.dtype) -> None:
    """Of one and the same sum, which centres points and does not."""
    x, y = ((10 + 0.01 * samples((n, 3), torch.float64, seed=n)).to(dtype) for n in (20, 17))
    of = Mixture(("matern32", "polynomial"), (1.0, 3.0), torch.tensor([[0.03], [1.0]], dtype=torch.float64))
    for c in range(2):
        weights = torch.tensor([[1.0], [1.0], [-1.5]]).double() * (torch.arange(2) == c)
        ours = derivatives(
            lambda x, y: kernel_sums(x, y, of.kinds, of.params, weights, shapes=of.shapes)[0],  # noqa: B023
            (x, y),
            (x - 10, y - 10),
        )
        exact = derivatives(
            lambda x, y: (weights * formulas.sums(x, y, of)).sum(),  # noqa: B023
            (x.double(), y.double()),
            (x.double() - 10, y.double() - 10),
        )
        for result, expected in zip([ours[0], *ours[1], *ours[2]], [exact[0], *exact[1], *exact[2]], strict=True):
            error = (result.double() - expected).abs().max() / expected.abs().max()
            assert error <= FAR_FROM_ORIGIN[dtype], (of.kinds[c], error)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_nan_and_infinity_propagate_and_coincident_points_are_finite(backend: str, dtype: torch.dtype) -> None:
    x, weights = samples((3, 2), dtype, seed=1), (1.0, 1.0, -2.0)
    for bad, kinds in (
        (torch.nan, ("polynomial",)),
        (torch.inf, ("rbf", "polynomial")),
        (None, ("matern32", "matern52", "rbf", "rational_quadratic")),
        (None, ("energy", "laplacian", "inverse_multiquadric")),
    ):
        of, points = mixture_of(*kinds), (x.clone(), torch.cat([x[:2], x[:1]]))
        if bad is not None:
            points[0][1, 1] = bad
        value, first, second = derivatives(
            lambda x, y: kernel_sums(x, y, of.kinds, of.params, weights, shapes=of.shapes)[0],  # noqa: B023
            points,
            points,
        )
        if bad is not None:
            assert not value.isfinite() and all(not g.isfinite().all() for g in (*first, *second))
            continue
        exact = derivatives(
            lambda x, y: (torch.tensor(weights)[:, None] * formulas.sums(x, y, of)).sum(),  # noqa: B023
            [p.double() for p in points],
            points,
        )
        for ours, good in zip((value, *first, *second), (exact[0], *exact[1], *exact[2]), strict=True):
            assert (ours.double() - good).abs().max() <= COINCIDENT * torch.finfo(dtype).eps * good.abs().max().clamp(1)


def test_half_width_gradients_are_scaled_before_they_are_rounded(backend: str) -> None:
    x, y = samples((20, 2), torch.float16, seed=1), samples((20, 2), torch.float16, seed=2)
    scaled, full = leaf(x), leaf(x.double())
    for each, other in ((scaled, y), (full, y.double())):
        (weighted_kernel_sum(each, other, ("rbf",), (300.0,), (1e-5, 1e-5, -2e-5)) * 2.0**24).backward()
    assert full.grad.abs().max() / 2.0**24 < torch.finfo(torch.float16).smallest_normal
    error = (scaled.grad.double() - full.grad).abs().max() / full.grad.abs().max()
    assert error < ROUNDED_TWICE * torch.finfo(torch.float16).eps


def test_opcheck(backend: str) -> None:
    operators = torch.ops.wgan_kernels
    x, y = samples((2, 3, 2), torch.bfloat16, "columns"), samples((2, 2, 2), torch.bfloat16, seed=1)
    (params, weights), grad_sums = mixture(KINDS, 2), samples((2, 3, 2), torch.float64)
    settings = ([2, 7], [0.5, 3.0], False, 0, -1, False)
    for operator, arguments in [
        (operators.kernel_sums_triton, (leaf(x), leaf(y), leaf(weights), leaf(params), *settings, 5)),
        (operators.kernel_sums_backward_triton, (leaf(grad_sums), leaf(x), leaf(y), leaf(params), *settings, 2)),
        (operators.kernel_sums_double_backward_triton, (x, None, params, grad_sums, x, y, params, *settings, 7)),
    ]:
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        results = torch.library.opcheck(operator.default, arguments, test_utils=tests)
        assert set(results.values()) == {"SUCCESS"} and len(results) == 3


def test_only_what_needs_it_is_taken_in_float64(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags, exact = [], []

    class Seen:
        def __init__(self, seen: list[Any]) -> None:
            self.seen = seen

        def __getitem__(self, grid: tuple[int]) -> Any:
            return lambda *arguments, **settings: self.seen.append(arguments[8].clone())

    for name, seen in (("flagged", flags), ("flagged_wide", flags), ("exact", exact), ("exact_wide", exact)):
        monkeypatch.setattr(module, f"kernel_sums_{name}_kernel", Seen(seen))
    header = (Path(__file__).parents[2] / "csrc" / "core" / "mixture.cuh").read_text()
    limit = float(re.search(r"kFloatDistances = (\d+)", header)[1])
    x = samples((4, 2), torch.float32, seed=1)
    near, far = (torch.tensor([[-1.0], [1.0]]) * (2 * (limit + by)) ** 0.5 for by in (-1, 1))
    wide = torch.tensor([[-1.0], [1.0]])
    for points, kind, theta, shape, expected in [
        (x + 100, "rbf", 1.0, 1.0, 0),  # whose scale is 2
        (near, "rbf", 1.0, 1.0, 0),
        (x + 1000 * torch.arange(4.0)[:, None], "rbf", 1.0, 1.0, 1),
        (far, "rbf", 1.0, 1.0, 1),
        (near / 2**0.5, "rational_quadratic", 1.0, 0.5, 0),  # 1
        (far / 2**0.5, "rational_quadratic", 1.0, 0.5, 1),
        (near, "matern32", 3**0.5, 1.0, 0),
        (far, "matern52", 2**0.5, 1.0, 1),
        (wide + 3.9, "polynomial", 1.0, 3.0, 0),  # |o|^2 up to 16 |z|^2
        (wide + 4.1, "polynomial", 1.0, 3.0, 1),
        (wide * 1e5, "polynomial", 1.0, 3.0, 1),
        (wide * 1e4, "polynomial", 1.0, 3.0, 0),
        (wide * 1e-5, "polynomial", 0.0, 3.0, 1),
    ]:
        kernel_sums(points, points, (kind,), (theta,), (1.0, 1.0, -2.0), shapes=(shape,))
        assert flags.pop().unique().tolist() == [expected], (kind, points)
    for kind in ("laplacian", "energy"):
        kernel_sums(x, x, (kind,), (1.0,), (1.0, 1.0, -2.0))
    assert len(exact) == 2 and not flags


@pytest.mark.parametrize(("share", "D"), [(0.9, 3), (0.4, 3), (0.9, 150)])
def test_distances_in_float32_are_as_good_as_torch_up_to_the_limit(backend: str, share: float, D: int) -> None:
    """Two clusters, each as far from the mean as float32 is trusted; in one block of features and in several."""
    params, weights = mixture(KINDS, 3)
    scale = min(2 * params[0, 0].item() ** 2, params[1, 0].item())
    assert KINDS == ("rbf", "inverse_multiquadric")
    points = [0.5 * (3 * scale / D) ** 0.5 * samples((20, D), torch.float32, seed=seed) for seed in (1, 2)]
    for each in points:
        each[::2, 0] += (share * 128 * scale) ** 0.5
        each[1::2, 0] -= (share * 128 * scale) ** 0.5
    along = [samples((20, D), torch.float32, seed=seed) for seed in (3, 4)]
    wide = [each.double() for each in points]
    ours = derivatives(lambda x, y: kernel_sums(x, y, KINDS, params, weights)[0], points, along)
    rough = derivatives(lambda x, y: plain(x, y, KINDS, params, weights)[0], points, along)
    exact = derivatives(lambda x, y: exactly(x, y, KINDS, params, weights)[0], wide, along)
    for order in (0, 1, 2):
        for results in zip(*[[each[0]] if order == 0 else each[order] for each in (ours, rough, exact)], strict=True):
            assert_as_good_as_torch(*results, f"derivative {order}")


def test_points_of_any_layout_and_of_no_features(backend: str) -> None:
    operator = torch.ops.wgan_kernels.kernel_sums_triton
    params, weights = mixture(KINDS, 3)
    settings = (weights, params, [4, 7], [1.0, 2.0], False, 0, -1, True, 3)
    for layout in ("columns", "transposed", "expanded_batch"):
        x, y = samples((2, 3, 3), torch.float32, layout, seed=1), samples((2, 2, 3), torch.float32, "rows", seed=2)
        results = zip(operator(x, y, *settings), operator(x.contiguous(), y.contiguous(), *settings), strict=True)
        for one, other in results:
            assert_same_bits(one, other)
    _, sums = kernel_sums(torch.empty(3, 0), torch.empty(2, 0), ("rbf",), (1.0,), (1.0, 1.0, -2.0))
    assert sums.flatten().tolist() == [6, 2, 6]


def test_gradients_of_more_numbers_than_an_int32_counts(backend: str) -> None:
    """The programs that add up the first of them."""
    N = D = 1 << 16
    like = torch.empty((), dtype=torch.float64)
    sums, gradients = like.new_zeros(N // BLOCK, 4, 1), torch.arange(float(FINISH_ELEMENTS), dtype=torch.float64)
    weights, params, value, totals = like.new_ones(3, 1), like.new_ones(1, 1), like.new_empty(1), like.new_empty(3)
    grad_x = like.new_zeros(FINISH_ELEMENTS)
    module.kernel_sums_finish_kernel[(2,)](
        sums, gradients, weights, params, params, params, value, totals, totals, grad_x, grad_x, 1, N, 0, D, 0, N, 1,
        1, 0, KINDS=0, C=1, CPAD=1, NEEDS=1, TANGENT=False, DIAGONAL=True, BLOCK=BLOCK, PARTS=N // BLOCK,
        ELEMENTS=FINISH_ELEMENTS,
    )  # fmt: skip
    assert_same_bits(grad_x, gradients)
