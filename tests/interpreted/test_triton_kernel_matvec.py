"""The Triton kernel of kernel_matvec: the CPU kernel's tests where they are short, and their cases where not."""

from __future__ import annotations

import kernel_formulas as formulas
import pytest
import test_kernel_matvec as native_tests
import torch
from cases import DTYPES, assert_same_bits, leaf, samples
from kernel_formulas import Mixture, mixture_of
from test_kernel_matvec import (  # noqa: F401 - tests that run as they are
    KINDS,
    PARAMS,
    WEIGHTS,
    double_inputs,
    test_far_from_the_origin,
    test_nan_and_infinity_propagate,
    test_no_points,
    test_third_derivative_raises,
)
from test_kernel_matvec_degree_1 import (  # noqa: F401 - likewise
    test_derivatives_of_polynomials_of_degree_1,
    test_polynomials_of_degree_1_in_a_mixture,
)
from tolerances import FAR_APART, assert_same_by_another_route
from torch import Tensor

from wgan_kernels import use_backend
from wgan_kernels._triton import kernel_matvec as module
from wgan_kernels._triton._tiles import BLOCK, FEATURES
from wgan_kernels.ops.kernel_matvec import kernel_matvec

COLUMNS = module.MOST_COLUMNS
# N, M, D, P
SIZES = [(1, 1, 1, 1), (BLOCK + 1, BLOCK - 1, 3, 2), (3, BLOCK + 1, FEATURES + 1, 1), (BLOCK, 2, FEATURES, COLUMNS + 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_product_and_gradients_are_as_good_as_torch(
    backend: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native_tests, "SIZES", SIZES)
    native_tests.test_product_and_gradients_are_as_good_as_torch(backend, dtype)


@pytest.mark.parametrize(
    ("problems", "rows", "diagonal", "kinds"),
    [
        ((2,), (1, 3), False, ("polynomial", "matern52")),
        ((), (0, -1), True, ("laplacian", "rational_quadratic")),
    ],
)
def test_derivatives_equal_those_of_the_reference(
    backend: str, problems: tuple[int, ...], rows: tuple[int, int], diagonal: bool, kinds: tuple[str, ...]
) -> None:
    results = []
    settings = {"shapes": mixture_of(*kinds).shapes, "diagonal": diagonal, "begin": rows[0], "end": rows[1]}
    for name in (backend, "reference"):
        x, y, v, weights, params = inputs = double_inputs(problems)
        with use_backend(name):
            out = kernel_matvec(x, y, v, kinds, params, weights, **settings)
            first = torch.autograd.grad((out * out.detach().cos()).sum(), inputs, create_graph=True)
            along = [samples(g.shape, g.dtype, seed=k) for k, g in enumerate(first)]
            second = torch.autograd.grad(sum([(g * u).sum() for g, u in zip(first, along)]), inputs)
        results.append([t.detach() for t in (out, *first, *second)])
    for ours, theirs in zip(*results, strict=True):
        assert_same_by_another_route(ours, theirs)


def exactly(x: Tensor, y: Tensor, v: Tensor, of: Mixture, term: int, rows: tuple[int, int], diagonal: bool) -> Tensor:
    """In float64, with WEIGHTS."""
    matrix = torch.zeros(*x.shape[:-1], y.shape[-2], dtype=torch.float64)
    for weight, kind, shape, theta in zip(WEIGHTS, of.kinds, of.shapes, of.params):
        s = formulas.pairs(x.double(), y.double(), kind)
        matrix += weight * formulas.terms(kind, s, theta.item(), shape)[term]
    if not diagonal:
        matrix *= 1 - torch.eye(*matrix.shape[-2:], dtype=torch.float64)
    return matrix[..., rows[0] : rows[1], :] @ v.double()


MIXTURES = [("rbf", "polynomial"), ("inverse_multiquadric", "matern52"), ("laplacian", "polynomial"),
            ("matern32", "rational_quadratic"), ("polynomial", "polynomial"), ("rbf", "energy")]  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_every_term_of_ranges_and_batches(backend: str, dtype: torch.dtype) -> None:
    x, y, v = (samples((2, n, d), dtype, seed=n) for n, d in ((BLOCK + 2, 2), (BLOCK + 1, 2), (BLOCK + 1, 2)))
    for term in range(6):
        of = mixture_of(*MIXTURES[(term + 3 * (dtype == torch.float32)) % 6])
        rows, diagonal = (1, (BLOCK, BLOCK + 2)[term % 2]), term % 3 == 0
        ours = torch.ops.wgan_kernels.kernel_matvec_triton(
            x, y, v, WEIGHTS, of.params, of.codes, of.shapes, False, term, *rows, diagonal
        )
        expected = exactly(x, y, v, of, term, rows, diagonal)
        assert_same_by_another_route(ours, expected.to(dtype), f"term {term} of {of.kinds}")


def test_powers_that_float32_cannot_hold_are_taken_in_float64(backend: str) -> None:
    x, y, v = (samples((n, 2), torch.float32, seed=n) for n in (5, 4, 4))
    for factor in (1e5, 1e-6):
        of = Mixture(("polynomial", "polynomial"), (4.0, 4.0), torch.full((2, 1), factor**2, dtype=torch.float64))
        inputs = x * factor, y * factor, v / factor**2.5
        ours = kernel_matvec(*inputs, of.kinds, of.params, WEIGHTS, shapes=of.shapes)
        expected = exactly(*inputs, of, 0, (0, 5), True)
        assert (ours.double() - expected).abs().max() <= FAR_APART * expected.abs().max()


def test_shares_of_the_points_add_up_and_bits_are_the_same_twice(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y, v = (samples((n, 2), torch.float32, seed=n) for n in (5, 2 * BLOCK + 1, 2 * BLOCK + 1))
    results = []
    for programs in (1, 3, 3):
        monkeypatch.setattr(module, "PROGRAMS", programs)
        results.append(kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS))
    assert_same_by_another_route(results[1], results[0])
    assert_same_bits(results[1], results[2])


def test_tight_clusters_far_apart(backend: str) -> None:
    x = 0.01 * samples((20, 2), torch.float32, seed=1)
    x[10:] += 1000.0
    y, v = x + 0.01 * samples((20, 2), torch.float32, seed=2), samples((20, 2), torch.float32)
    params = torch.tensor([[0.02], [0.001]]).double()
    ours = kernel_matvec(x, y, v, KINDS, params)
    with use_backend("reference"):
        exact = kernel_matvec(x.double(), y.double(), v.double(), KINDS, params)
    assert (ours.double() - exact).abs().max() <= FAR_APART * exact.abs().max()


def test_any_layout(backend: str) -> None:
    for layout in ("transposed", "expanded_batch"):
        x, y, v = (samples((2, n, 3), torch.float32, layout, seed=n) for n in (3, 2, 2))
        one = kernel_matvec(x, y, v, KINDS, PARAMS, WEIGHTS)
        assert_same_bits(one, kernel_matvec(x.contiguous(), y.contiguous(), v.contiguous(), KINDS, PARAMS, WEIGHTS))


def test_opcheck(backend: str) -> None:
    x, y = samples((2, 3, 2), torch.bfloat16, "columns"), samples((2, 2, 2), torch.bfloat16)
    arguments = (leaf(x), leaf(y), leaf(samples((2, 2, 2), torch.float32)), leaf(WEIGHTS), leaf(PARAMS))
    tests = ("test_schema", "test_autograd_registration", "test_faketensor")
    operator = torch.ops.wgan_kernels.kernel_matvec_triton.default
    results = torch.library.opcheck(operator, (*arguments, [7, 2], [3.0, 0.5], False, 0, 1, 3, False), test_utils=tests)
    assert set(results.values()) == {"SUCCESS"} and len(results) == 3
