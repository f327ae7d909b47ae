"""The Triton kernels of kernel_sums: the CPU kernels' tests where they are short, and their cases where not."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import DTYPES, assert_same_bits, leaf, samples
from test_kernel_sums import (  # noqa: F401 - tests that run as they are
    KINDS,
    assert_parity,
    derivatives,
    exactly,
    mixture,
    plain,
    test_kernels_of_far_points_vanish,
    test_known_sums_of_four_points,
    test_no_points,
    test_third_derivative_raises,
)
from tolerances import FAR_APART, FAR_FROM_ORIGIN, ROUNDED_TWICE, assert_as_good_as_torch, assert_same_by_another_route
from torch import Tensor

from wgan_kernels import use_backend
from wgan_kernels._triton import kernel_sums as module
from wgan_kernels._triton._pair_finish import FINISH_ELEMENTS
from wgan_kernels._triton._tiles import BLOCK, FEATURES
from wgan_kernels.ops.kernel_sums import kernel_sums, weighted_kernel_sum

# N, M, D. In float64 features are gone through one by one, whatever their number.
SIZES = {
    torch.float64: [(1, 1, 1), (BLOCK + 1, BLOCK - 1, 2), (2, 3, FEATURES + 1)],
    torch.float32: [(1, 1, 1), (BLOCK + 1, BLOCK - 1, 3), (BLOCK, 2, FEATURES), (2, BLOCK + 1, FEATURES + 1)],
    torch.bfloat16: [(BLOCK - 1, BLOCK + 1, 5), (3, 2, FEATURES + 1)],
    torch.float16: [(BLOCK + 1, 2, FEATURES - 1), (1, 3, 1)],
}


@pytest.fixture(autouse=True)
def _tiles_are_not_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter takes its time for every program."""
    monkeypatch.setattr(module, "PROGRAMS", 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_derivatives_are_as_good_as_torch(backend: str, dtype: torch.dtype) -> None:
    for index, (N, M, D) in enumerate(SIZES[dtype]):
        x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 0.5
        assert_parity(x, y, KINDS, f"{N}, {M}, {D}", diagonal=index % 2 == 1)


def everything(x: Tensor, y: Tensor, numbers: tuple[Tensor, Tensor], wanted: str, **settings: int) -> list[Tensor]:
    """Value, sums, gradients of both by what is wanted, and of the value alone, which are saved by the forward sweep,
    and second derivatives. numbers: params and weights."""
    inputs = [leaf(t) if name in wanted else t for name, t in zip("xypw", (x, y, *numbers))]
    leaves = [each for each in inputs if each.requires_grad]
    kinds = [KINDS[c % 2] for c in range(len(numbers[0]))]

    def call() -> tuple[Tensor, Tensor]:
        return kernel_sums(inputs[0], inputs[1], kinds, inputs[2], inputs[3], **settings)

    value, sums = call()
    total = value.sum() + (sums * samples(sums.shape, torch.float64, seed=6)).sum()
    first = torch.autograd.grad(total, leaves, create_graph=True)
    saved = torch.autograd.grad(call()[0].sum(), leaves)
    along = [samples(g.shape, torch.float64, seed=7) for g in first]
    second = torch.autograd.grad(sum([(g * u).sum() for g, u in zip(first, along)]), leaves, allow_unused=True)
    return [t.detach() for t in (value, sums, *first, *saved, *second) if t is not None]


B = BLOCK


@pytest.mark.parametrize(
    ("wanted", "N", "M", "C", "rows", "diagonal"),
    [
        ("x", B + 2, B + 1, 2, (0, -1), True),
        ("y", B + 2, B + 1, 2, (3, -1), False),
        ("p", B + 2, B + 1, 1, (0, B + 2), False),
        ("xy", B + 2, B + 1, 2, (B - 1, B), True),
        ("xp", B + 2, B + 1, 2, (B + 3, B + 5), False),
        ("xypw", 4, 3, 3, (1, 6), True),
    ],
)
def test_what_is_wanted_of_a_range_of_rows_equals_the_reference(
    backend: str, wanted: str, N: int, M: int, C: int, rows: tuple[int, int], diagonal: bool
) -> None:
    problems = (2,) if C == 3 else ()
    x, y = samples((*problems, N, 2), torch.float64, seed=1), samples((*problems, M, 2), torch.float64, seed=2)
    numbers = torch.linspace(0.9, 1.7, C).double()[:, None], samples((*problems, 3, C), torch.float64, seed=3)
    results = []
    for name in (backend, "reference"):
        with use_backend(name):
            results.append(everything(x, y, numbers, wanted, begin=rows[0], end=rows[1], diagonal=diagonal))
    for one, other in zip(*results, strict=True):
        assert_same_by_another_route(one, other)


def test_shares_of_a_tile_add_up_and_bits_are_the_same_twice(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = samples((BLOCK + 2, 3), torch.float32, seed=1), samples((2, 3), torch.float32, seed=2)
    results = []
    for programs in (1, 2 * 3, 2 * 3):
        monkeypatch.setattr(module, "PROGRAMS", programs)
        results.append(everything(x, y, mixture(KINDS, 3), "xyp"))
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
def test_nan_and_infinity_propagate_and_coincident_points_are_finite(backend: str, dtype: torch.dtype) -> None:
    x = samples((3, 2), dtype, seed=1)
    for bad in (torch.nan, torch.inf, None):
        points = x.clone(), torch.cat([x[:2], x[:1]])
        if bad is not None:
            points[0][1, 1] = bad
        value, first, second = derivatives(
            lambda x, y: kernel_sums(x, y, KINDS, (1.0, 1.0), (1.0, 1.0, -2.0))[0], points, points
        )
        if bad is None:
            assert all(t.isfinite().all() for t in (value, *first, *second))
        else:
            assert value.isnan() and all(g.isnan().any() for g in (*first, *second))


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
    settings = ([0, 1], [0.0, 0.0], False, 0, -1, False)
    for operator, arguments in [
        (operators.kernel_sums_triton, (leaf(x), leaf(y), leaf(weights), leaf(params), *settings, 5)),
        (operators.kernel_sums_backward_triton, (leaf(grad_sums), leaf(x), leaf(y), leaf(params), *settings, 2)),
        (operators.kernel_sums_double_backward_triton, (x, None, params, grad_sums, x, y, params, *settings, 7)),
    ]:
        tests = ("test_schema", "test_autograd_registration", "test_faketensor")
        results = torch.library.opcheck(operator.default, arguments, test_utils=tests)
        assert set(results.values()) == {"SUCCESS"} and len(results) == 3


def test_only_distances_that_need_it_are_taken_in_float64(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = []

    class Seen:
        def __getitem__(self, grid: tuple[int]) -> Any:
            return lambda *arguments, **settings: flags.append(arguments[7].clone())

    monkeypatch.setattr(module, "kernel_sums_flagged_kernel", Seen())
    header = (Path(__file__).parents[2] / "csrc" / "core" / "mixture.cuh").read_text()
    limit = float(re.search(r"kFloatDistances = (\d+)", header)[1])
    x = samples((4, 2), torch.float32, seed=1)
    near, far = (torch.tensor([[-1.0], [1.0]]) * (2 * (limit + by)) ** 0.5 for by in (-1, 1))
    for points in (x + 100, near, x + 1000 * torch.arange(4.0)[:, None], far):
        kernel_sums(points, points, ("rbf",), (1.0,), (1.0, 1.0, -2.0))  # whose scale is 2
    assert [each.unique().tolist() for each in flags] == [[0], [0], [1], [1]]


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
    settings = (weights, params, [0, 1], [0.0, 0.0], False, 0, -1, False, 3)
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
        sums, gradients, weights, params, params, params, value, totals, totals, grad_x, grad_x, 1, N, 0, D, 0, N, 1, 1, 0,
        KINDS=0, C=1, CPAD=1, NEEDS=1, TANGENT=False, DIAGONAL=True, BLOCK=BLOCK, PARTS=N // BLOCK,
        ELEMENTS=FINISH_ELEMENTS,
    )  # fmt: skip
    assert_same_bits(grad_x, gradients)
