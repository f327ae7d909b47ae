"""kernel_matvec_cuda, run by the CPU, against the formulas in float64 by differences of points."""

import itertools

import numpy as np
import pytest
from core_arrays import QUICK, SIMT_DTYPES, WIDE, Output, place, to_values
from test_core_kernel_sums import (
    ENERGY,
    IMQ,
    KINDS,
    LAPLACIAN,
    MATERN32,
    POLYNOMIAL,
    RBF,
    SUMS_TOLERANCE,
    assert_near,
    matrix_of,
    problem,
    shapes_of,
)
from test_simt_kernel_sums import FAR_APART, FIRST_MIXTURE, MIXTURES, both_orders, mixed

# Tiles have 64 rows, 32 columns in float and 16 in double; features and columns of v are cut at 64 and 32.
SIZES = [
    (1, 1, 1, 1),
    (1, 2, 0, 3),
    (15, 17, 7, 8),
    (63, 64, 8, 5),
    (64, 15, 9, 31),
    (65, 16, 3, 33),
    (31, 65, 31, 63),
    (3, 128, 33, 64),
    (5, 129, 2, 65),
    (4, 5, 65, 130),
    (150, 3, 130, 2),
    (2, 63, 5, 1),
]
SIZES = [(2, 3, 0, 5), (15, 17, 9, 33), (33, 18, 3, 8), (4, 3, 65, 65)] if QUICK else SIZES


def product(simt, run, dtype, x, y, v, rows, diagonal, term, mixture, **options):
    out = Output((len(x), rows[1] - rows[0], v.shape[2]), WIDE[dtype])
    simt.kernel_matvec(run, dtype, x, y, v, rows, diagonal, term, mixture, out.array, **options)
    return out.written()


def exact_product(dtype, x, y, v, rows, diagonal, term, kinds, thetas, weights):
    """The product, and the sum of the magnitudes of its terms with room for rounded squares."""
    a, c = to_values(x, dtype)[rows[0] : rows[1]], to_values(y, dtype)
    each = [w * matrix_of(kind, t, a, c)[term] for w, kind, t in zip(weights, kinds, thetas)]
    self_pairs = np.arange(*rows)[:, None] == np.arange(len(c))[None, :]
    matrix = sum(each) * (diagonal | ~self_pairs)
    return matrix @ v, 30 * (sum(map(np.abs, each)) + 1).sum(1, keepdims=True) * np.abs(v).max(initial=0)


def samples(rng, M, P, dtype):
    return place(rng.normal(size=(2, M, P)), {8: "float64", 4: "float32"}[np.dtype(WIDE[dtype]).itemsize])


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_products(simt, dtype):
    rng = np.random.default_rng(5)
    for index, (N, M, D, P) in enumerate(SIZES):
        kinds = MIXTURES[(index + FIRST_MIXTURE[dtype]) % len(MIXTURES)]
        x, y, _, _, _, thetas, _, _ = mixed(rng, N, M, D, dtype, kinds)
        rows, diagonal = [(0, N), (N // 3, N), (0, N)][index % 3], index % 4 == 0
        v, weights = samples(rng, M, P, dtype), rng.normal(size=len(kinds))
        mixture = simt.Mixture(kinds, thetas, weights.tolist(), [], shapes_of(kinds))
        for term in range(6):
            arguments = dtype, x, y, v, rows, diagonal, term, mixture
            (result,) = both_orders(simt, lambda run: (product(simt, run, *arguments),))  # noqa: B023
            for b in range(2):
                exact, size = exact_product(dtype, x[b], y[b], v[b], rows, diagonal, term, kinds, thetas, weights)
                assert_near(result[b], exact, size, SUMS_TOLERANCE[dtype], f"{N}, {M}, {D}, {P}, {kinds}, term {term}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranges_are_rows_of_the_whole(simt, dtype):
    rng = np.random.default_rng(6)
    x, y, _, _, kinds, thetas, _, _ = problem(rng, 70, 20, 3, dtype, 2)
    v, mixture = samples(rng, 20, 3, dtype), simt.Mixture(kinds, thetas, [1.0, -0.5])
    cuts = [0, 1, 1, 18, 66, 70]
    for diagonal in (True, False):
        whole = product(simt, simt.Run(), dtype, x, y, v, (0, 70), diagonal, 0, mixture)
        parts = [product(simt, simt.Run(), dtype, x, y, v, rows, diagonal, 0, mixture) for rows in zip(cuts, cuts[1:])]
        np.testing.assert_allclose(np.concatenate(parts, 1), whole, rtol=0, atol=1e-6 * abs(whole).max())


def test_nothing_to_sum_is_zero(simt):
    mixture = simt.Mixture([RBF], [1.0], [1.0])
    x, v = np.zeros((2, 5, 3)), np.zeros((2, 0, 4))
    assert (product(simt, simt.Run(), "float64", x, x[:, :0], v, (0, 5), True, 0, mixture) == 0).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_far_from_the_origin(simt, dtype):
    rng = np.random.default_rng(7)
    x, y = (place(100 + 0.01 * rng.normal(size=(2, P, 5)), dtype) for P in (20, 15))
    v, kinds, thetas = samples(rng, 15, 3, dtype), [RBF, IMQ], [0.02, 0.001]
    result = product(simt, simt.Run(), dtype, x, y, v, (0, 20), True, 0, simt.Mixture(kinds, thetas, [1.0, 0.5]))
    for b in range(2):
        exact, _ = exact_product(dtype, x[b], y[b], v[b], (0, 20), True, 0, kinds, thetas, [1.0, 0.5])
        # Of what was rounded with the points nothing is left to us.
        assert abs(result[b] - exact).max() < {"float32": 1e-5, "float64": 1e-9}[dtype] * abs(exact).max()


def test_products_far_from_the_origin_are_served_by_double(simt):
    rng = np.random.default_rng(12)
    x, y = (place(100 + rng.normal(size=(2, P, 5)), "float32") for P in (20, 15))
    v, kinds, thetas = samples(rng, 15, 3, "float32"), [POLYNOMIAL, RBF], [0.5, 2.0]
    mixture = simt.Mixture(kinds, thetas, [1.0, 0.5], [], shapes_of(kinds))
    result = product(simt, simt.Run(), "float32", x, y, v, (0, 20), True, 0, mixture)
    for b in range(2):
        exact, _ = exact_product("float32", x[b], y[b], v[b], (0, 20), True, 0, kinds, thetas, [1.0, 0.5])
        assert abs(result[b] - exact).max() < 1e-7 * abs(exact).max()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_coincident_points(simt, dtype):
    rng = np.random.default_rng(13)
    x = place(rng.normal(size=(2, 6, 3)), dtype)
    y, v = place(np.concatenate([x[:, :4], rng.normal(size=(2, 3, 3))], 1), dtype), samples(rng, 7, 2, dtype)
    for kinds, term in itertools.product(([LAPLACIAN, ENERGY], [MATERN32, POLYNOMIAL]), range(6)):
        mixture = simt.Mixture(kinds, [0.9, 1.1], [1.0, 0.5], [], shapes_of(kinds))
        result = product(simt, simt.Run(), dtype, x, y, v, (0, 6), True, term, mixture)
        for b in range(2):
            exact, size = exact_product(dtype, x[b], y[b], v[b], (0, 6), True, term, kinds, [0.9, 1.1], [1.0, 0.5])
            if MATERN32 in kinds and term == 2 and dtype == "float32":
                # 1 / r, of distances that rounding makes of 0. What it is a factor of vanishes with r^2.
                assert np.isfinite(result).all()
            else:
                assert_near(result[b], exact, size, SUMS_TOLERANCE[dtype], f"{kinds}, term {term}")


@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_float32_that_float64_has_to_serve(simt, precision):
    rng = np.random.default_rng(8)
    x = 0.01 * rng.normal(size=(2, 20, 3)) + np.where(np.arange(20) % 2, 500, 0)[None, :, None]
    x, y = place(x, "float32"), place(x + 0.01 * rng.normal(size=x.shape), "float32")
    v, mixture = samples(rng, 20, 3, "float32"), simt.Mixture([RBF], [0.02], [1.0])
    result = product(simt, simt.Run(), "float32", x, y, v, (0, 20), True, 0, mixture, precision=precision)
    for b in range(2):
        exact, _ = exact_product("float32", x[b], y[b], v[b], (0, 20), True, 0, [RBF], [0.02], [1.0])
        assert abs(result[b] - exact).max() < FAR_APART * abs(exact).max()


def test_tf32_is_as_precise_as_its_name(simt):
    rng = np.random.default_rng(9)
    x, y, _, _, kinds, thetas, _, _ = problem(rng, 20, 30, 6, "float32", 2)
    v, weights = samples(rng, 30, 4, "float32"), [1.0, 0.5]
    errors = {}
    for precision in ("ieee", "tf32"):
        arguments = "float32", x, y, v, (0, 20), True, 0, simt.Mixture(kinds, thetas, weights)
        result = product(simt, simt.Run(), *arguments, precision=precision)
        exact = [exact_product("float32", x[b], y[b], v[b], (0, 20), True, 0, kinds, thetas, weights) for b in range(2)]
        errors[precision] = max(abs(result[b] - exact[b][0]).max() / abs(exact[b][0]).max() for b in range(2))
    assert errors["ieee"] < SUMS_TOLERANCE["float32"] < errors["tf32"] < 2.0**-10


@pytest.mark.skipif(QUICK, reason="many blocks")
def test_products_over_more_tiles_than_are_added_up_at_once(simt):
    """Problems enough that one block sees all columns, nine tiles of them."""
    rng = np.random.default_rng(10)
    B, M = 270, 135
    x, y, v = (rng.normal(size=(B, P, 1)) for P in (1, M, M))
    result = product(simt, simt.Run(), "float64", x, y, v, (0, 1), True, 0, simt.Mixture([IMQ], [1.5], [1.0]))
    terms = 1.5 / (1.5 + (x - y) ** 2) * v
    assert_near(result[:, 0, 0], terms.sum((1, 2)), abs(terms).sum((1, 2)), 1e-13, "product")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_propagate(simt, bad):
    rng = np.random.default_rng(11)
    x, y = rng.normal(size=(2, 5, 3)).astype(np.float32), rng.normal(size=(2, 4, 3)).astype(np.float32)
    y[:, 1, 1] = bad
    for precision, kind in itertools.product(("ieee", "tf32"), KINDS):
        mixture = simt.Mixture([kind], [1.0], [1.0], [], shapes_of([kind]))
        arguments = "float32", x, y, np.ones((2, 4, 1), np.float32), (0, 5), True, 0, mixture
        assert np.isnan(product(simt, simt.Run(), *arguments, precision=precision)).all()
