"""kernel_sums_cuda and its tangent, run by the CPU, against the formulas in float64 by differences of points."""

import numpy as np
import pytest
from core_arrays import HALVES, QUICK, SIMT_DTYPES, STORAGE, WIDE, Output, assert_same_bits, place, to_values
from test_core_kernel_sums import (
    ENERGY,
    IMQ,
    KINDS,
    LAPLACIAN,
    MATERN32,
    MATERN52,
    POLYNOMIAL,
    RATIONAL_QUADRATIC,
    RBF,
    SUMS_TOLERANCE,
    TOLERANCE,
    Oracle,
    assert_near,
    call,
    problem,
    shapes_of,
)

# Tiles have 128 rows for sums alone, else 64; 32 columns in float, 16 for tangents and in double; features advance by 8
# and are cut at 64 in float and 32 in double. Rows are summed for the mean in slices of 512.
SIZES = [
    (1, 1, 1),
    (1, 0, 2),
    (0, 3, 1),
    (2, 3, 0),
    (15, 17, 7),
    (63, 1, 8),
    (64, 33, 9),
    (31, 65, 3),
    (127, 16, 5),
    (128, 129, 2),
    (6, 5, 31),
    (3, 4, 33),
    (4, 5, 65),
    (70, 3, 130),
    (500, 40, 1),
]
SIZES = [(2, 3, 0), (15, 17, 9), (66, 2, 3), (4, 3, 65)] if QUICK else SIZES
# Those of distances alone are served by exact half floats, those with a cusp by double.
MIXTURES = [
    [RBF],
    [IMQ, MATERN32],
    [RATIONAL_QUADRATIC, POLYNOMIAL, RBF],
    [MATERN52, POLYNOMIAL],
    [RBF, IMQ, RBF],
    [POLYNOMIAL],
    [LAPLACIAN, ENERGY, POLYNOMIAL],
]
FIRST_MIXTURE = {"float64": 2, "float32": 1, "bfloat16": 0, "float16": 3}

# As in tests/tolerances.py, which needs torch: relative to the largest entry.
FAR_APART = 1e-6


def mixed(rng, N, M, D, dtype, kinds):
    """As problem, of these kinds."""
    *points, _, thetas, along_thetas, weights = problem(rng, N, M, D, dtype, 3)
    C = len(kinds)
    return *points, kinds, thetas[:C], along_thetas[:C], weights[:, :, :C]


def both_orders(simt, run):
    """What run(order) returns, a list of arrays, after checking that the order of threads and blocks is all one."""
    results = run(simt.Run(False))
    for forward, backward in zip(results, run(simt.Run(True))):
        assert_same_bits(backward, forward, "threads and blocks in reverse")
    return results


def oracles(points, along, dtype, N, rows, diagonal, kinds, thetas, along_thetas, weights):
    for b in range(len(weights)):
        z, u = (np.concatenate([to_values(p[b], dtype) for p in pair]) for pair in (points, along))
        yield b, Oracle(z, N, u, rows, diagonal, kinds, thetas, along_thetas, weights[b])


def check_values(results, b, oracle, dtype, message):
    exact = SUMS_TOLERANCE[dtype]
    assert_near(results[0][b], oracle.sums, oracle.magnitude, exact, f"sums, {message}")
    assert_near(results[1][b], oracle.theta_sums, oracle.magnitude, exact, f"theta sums, {message}")


def check_gradients(results, b, oracle, dtype, message):
    grad = np.concatenate([to_values(g[b], dtype) for g in results[2:]])
    assert_near(grad, oracle.grad, oracle.grad_magnitude, TOLERANCE[dtype], f"gradient, {message}")


def check_tangents(results, b, oracle, dtype, message):
    exact, size = SUMS_TOLERANCE[dtype], oracle.along_magnitude
    assert_near(results[0][b], oracle.along_sums, size, exact, f"sums along, {message}")
    assert_near(results[1][b], oracle.along_theta_sums, size, exact, f"theta sums along, {message}")
    grad = np.concatenate([to_values(g[b], dtype) for g in results[2:]])
    assert_near(grad, oracle.along_grad, oracle.along_grad_magnitude, TOLERANCE[dtype], f"gradient along, {message}")


def check_everything(simt, dtype, N, rows, diagonal, inputs, message, **options):
    x, y, u, v, kinds, thetas, along_thetas, weights = inputs
    C = len(kinds)
    mixture = simt.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas, shapes_of(kinds))
    arguments = dtype, (x, y), rows, diagonal, mixture, C
    values = both_orders(simt, lambda run: call(simt, run, *arguments, wants=(True, False, False)))
    gradients = both_orders(simt, lambda run: call(simt, run, *arguments))
    tangents = both_orders(simt, lambda run: call(simt, run, *arguments, along=(u, v)))
    for b, oracle in oracles((x, y), (u, v), dtype, N, rows, diagonal, kinds, thetas, along_thetas, weights):
        check_values(values, b, oracle, dtype, f"alone, {message}")
        check_values(gradients, b, oracle, dtype, message)
        check_gradients(gradients, b, oracle, dtype, message)
        check_tangents(tangents, b, oracle, dtype, message)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_sums_gradients_and_tangents(simt, dtype):
    rng = np.random.default_rng(3)
    for index, (N, M, D) in enumerate(SIZES):
        rows = [(0, N + M), (0, N), ((N + M) // 3, N + M - 1), (0, N + M)][index % 4]
        inputs = mixed(rng, N, M, D, dtype, MIXTURES[(index + FIRST_MIXTURE[dtype]) % len(MIXTURES)])
        check_everything(simt, dtype, N, rows, index % 2 == 0, inputs, f"{N}, {M}, {D}, rows {rows}, {inputs[4]}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("C", [7, 32])
def test_many_components(simt, dtype, C):
    rng = np.random.default_rng(8)
    N, M, D = (9, 10, 3) if QUICK else (40, 30, 6)
    x, y, u, v, *_ = problem(rng, N, M, D, dtype, 1)
    kinds = [IMQ] * 7 if C == 7 else [RBF, IMQ, POLYNOMIAL, MATERN32, RATIONAL_QUADRATIC, MATERN52, RBF, IMQ] * 4
    thetas, along = np.geomspace(0.5, 8, C).tolist(), rng.normal(size=C).tolist()
    inputs = x, y, u, v, kinds, thetas, along, rng.normal(size=(2, 3, C))
    check_everything(simt, dtype, N, (0, N + M), False, inputs, f"{C} components")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_not_wanted_changes_nothing(simt, dtype):
    N, M, D = (20, 9, 3) if QUICK else (100, 30, 7)
    inputs = mixed(np.random.default_rng(4), N, M, D, dtype, [POLYNOMIAL, IMQ])
    x, y, u, v, kinds, thetas, along_thetas, weights = inputs
    mixture = simt.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas, shapes_of(kinds))
    for along in (None, (u, v)):
        arguments = simt, simt.Run(), dtype, (x, y), (3, N + M), False, mixture, 2, along
        everything = call(*arguments)
        for wants in np.ndindex(2, 2, 2):
            some = call(*arguments, wants=wants)
            expected = [everything[0], *[r for r, want in zip(everything[1:], wants) if want]]
            for actual, same in zip(some, expected):  # tiles differ, and with them the order of sums
                np.testing.assert_allclose(actual, same, rtol=0, atol=SUMS_TOLERANCE[dtype] * abs(same).max())
    zeros = call(simt, simt.Run(), dtype, (x, y), (0, N + M), False, mixture, 2, (None, v))
    same = call(simt, simt.Run(), dtype, (x, y), (0, N + M), False, mixture, 2, (np.zeros_like(u), v))
    for actual, expected in zip(zeros, same):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_value_is_the_weighted_sum(simt, dtype):
    x, y, _, _, kinds, thetas, _, weights = problem(np.random.default_rng(5), 9, 7, 3, dtype, 3)
    mixture = simt.Mixture(kinds, thetas, weights.ravel().tolist())
    wide = {8: "float64", 4: "float32"}[np.dtype(WIDE[dtype]).itemsize]
    sums, value = Output((2, 3, 3), np.float64), Output(2, WIDE[dtype])
    grad_x = Output(x.shape, STORAGE[wide])
    arguments = simt.Run(), dtype, x, y, (0, 16), False, mixture, sums.array, None, grad_x.array, None
    simt.kernel_sums(*arguments, value=value.array, grad_dtype=wide)
    terms = weights * sums.written()
    expected, size = terms.sum((1, 2)), abs(terms).sum((1, 2))
    assert_near(value.written(), expected, size, np.finfo(WIDE[dtype]).eps, "value")
    # Gradients of half-width points may be asked for in float32.
    for b, oracle in oracles((x, y), (x, y), dtype, 9, (0, 16), False, kinds, thetas, [0] * 3, weights):
        assert_near(grad_x.written()[b], oracle.grad[:9], oracle.grad_magnitude, TOLERANCE[wide], "wide gradient")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ranges_add_up(simt, dtype):
    N, M, D = (18, 7, 3) if QUICK else (90, 70, 5)
    inputs = mixed(np.random.default_rng(6), N, M, D, dtype, [RBF, POLYNOMIAL])
    x, y, u, v, kinds, thetas, along_thetas, weights = inputs
    mixture = simt.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas, shapes_of(kinds))
    cuts = [0, 1, N // 2, N // 2, N + 1, N + M - 2, N + M]
    for along in (None, (u, v)):
        results = [
            call(simt, simt.Run(), dtype, (x, y), rows, True, mixture, 2, along)
            for rows in [(0, N + M), *zip(cuts, cuts[1:])]
        ]
        for whole, *parts in zip(*results):
            np.testing.assert_allclose(sum(parts), whole, rtol=0, atol=8 * SUMS_TOLERANCE[dtype] * abs(whole).max())


@pytest.mark.skipif(QUICK, reason="many blocks")
def test_gradients_over_more_tiles_than_are_added_up_at_once(simt):
    """Problems enough that no tile of rows is shared by blocks: one block sees all columns, ten tiles of them."""
    B, M = 90, 135
    rng = np.random.default_rng(7)
    x, y = rng.normal(size=(B, 1, 1)), rng.normal(size=(B, M, 1))
    mixture = simt.Mixture([IMQ], [1.5], [1.0, 2.0, -1.0] * B)
    results = call(simt, simt.Run(), "float64", (x, y), (0, 1), False, mixture, 1, wants=(True, True, False))
    differences = x - y.swapaxes(1, 2)
    k = 1.5 / (1.5 + differences**2)
    np.testing.assert_allclose(results[0][:, 2, 0], k.sum((1, 2)), rtol=1e-13)
    terms = 2 * k**2 / 1.5 * differences
    assert_near(results[2][:, 0, 0], terms.sum((1, 2)), abs(terms).sum((1, 2)), 1e-13, "gradient")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_distances_survive_far_from_the_origin(simt, dtype):
    rng = np.random.default_rng(9)
    N, M, D = (10, 6, 4) if QUICK else (60, 50, 8)
    x, y = (place(100 + 0.01 * rng.normal(size=(1, P, D)), dtype) for P in (N, M))
    inputs = x, y, *(place(rng.normal(size=p.shape), dtype) for p in (x, y)), [RBF, IMQ], [0.03, 0.001], [0.01, 0.002]
    check_everything(simt, dtype, N, (0, N + M), False, (*inputs, rng.normal(size=(1, 3, 2))), "mean 100")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_products_far_from_the_origin_are_served_by_double(simt, dtype):
    """In float the product of the mean with itself would drown what points differ by."""
    rng = np.random.default_rng(17)
    N, M, D = 9, 6, 4
    x, y, u, v = (place(100 + rng.normal(size=(1, P, D)), dtype) for P in (N, M, N, M))
    weights = rng.normal(size=(1, 3, 2))
    for kinds in ([POLYNOMIAL, POLYNOMIAL], [POLYNOMIAL, RBF]):
        inputs = x, y, u, v, kinds, [0.5, 2.0], [0.3, -0.4], weights
        check_everything(simt, dtype, N, (0, N + M), True, inputs, "mean 100")
        mixture = simt.Mixture(kinds, [0.5, 2.0], weights.ravel().tolist(), [0.3, -0.4], shapes_of(kinds))
        sums, *_ = call(simt, simt.Run(), dtype, (x, y), (0, N + M), True, mixture, 2)
        args = dtype, N, (0, N + M), True, kinds, [0.5, 2.0], [0.3, -0.4], weights
        ((_, oracle),) = oracles((x, y), (u, v), *args)
        np.testing.assert_allclose(sums[0], oracle.sums, rtol=1e-11)


# Of half-width floats, a mean and a standard deviation of a few of their steps there, with all points near the mean.
STEPS = {"float16": (100, 0.2), "bfloat16": (100, 1.5)}


@pytest.mark.parametrize("dtype", HALVES)
def test_half_width_distances_survive_far_from_the_origin(simt, dtype):
    """Points less a rounded mean are exact where they all lie near it; features that also come close to 0 stay."""
    rng = np.random.default_rng(14)
    N, M, D = (10, 6, 4) if QUICK else (60, 50, 18)
    mean, step = STEPS[dtype]
    means = np.where(np.arange(D) % 3, mean, np.where(np.arange(D) % 2, 0, -mean))

    def points(count):
        near, spread = means + step * rng.normal(size=(1, count, D)), 4 * step * (1 - rng.random((1, count, D)) ** 2)
        return place(np.where(means == 0, spread, near), dtype)

    x, y, u, v = map(points, (N, M, N, M))
    thetas = [step * D**0.5, 2 * step**2 * D]
    inputs = x, y, u, v, [RBF, IMQ], thetas, [0.3 * step, step**2], rng.normal(size=(1, 3, 2))
    check_everything(simt, dtype, N, (0, N + M), False, inputs, "mean 100")


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("scale", [4.0, 2.5, 0.1])
def test_half_width_points_in_half_float_and_double(simt, dtype, scale):
    """Of mean 20, with one point far away: the mean cannot be taken off exactly, and |z|^2 is up to 430 D, or centred
    in float 270 D; the limit is 128 times the kernel's scale."""
    rng = np.random.default_rng(15)
    N, M, D = (10, 6, 4) if QUICK else (40, 30, 6)
    x, y, u, v = (20 + 0.5 * rng.normal(size=(2, P, D)) for P in (N, M, N, M))
    x[:, 3] = 4
    points = [place(p, dtype) for p in (x, y, u, v)]
    thetas = [(scale * D / 2) ** 0.5, scale * D]
    inputs = *points, [RBF, IMQ], thetas, [0.1, 0.2], rng.normal(size=(2, 3, 2))
    check_everything(simt, dtype, N, (0, N + M), False, inputs, f"scale {scale}")


@pytest.mark.parametrize(
    "kind, theta, apart",
    [(RBF, 0.02, 500), (IMQ, 0.001, 500), (MATERN32, 0.03, 500), (LAPLACIAN, 0.05, 5), (IMQ, 1e-31, 1), (RBF, 1e16, 1)],
)
@pytest.mark.parametrize("precision", ["ieee", "tf32"])
def test_float32_that_float64_has_to_serve(simt, kind, theta, apart, precision):
    """Tight clusters far apart, and constants beyond the range of float: relative to the largest entry."""
    rng = np.random.default_rng(10)
    N = 7 if QUICK else 40
    x = place(0.01 * rng.normal(size=(1, N, 3)) + np.where(np.arange(N) % 2, apart, 0)[None, :, None], "float32")
    y, u = place(x + 0.01 * rng.normal(size=x.shape), "float32"), place(rng.normal(size=x.shape), "float32")
    mixture = simt.Mixture([kind], [theta], [1.0, 0.5, -1.0], [theta])
    arguments = "float32", (x, y), (0, 2 * N), False, mixture, 1

    class Precise:
        """The module, with a precision."""

        kernel_sums = staticmethod(lambda *a: simt.kernel_sums(*a, precision=precision))
        kernel_sums_tangent = staticmethod(lambda *a: simt.kernel_sums_tangent(*a, precision=precision))

    first = call(Precise, simt.Run(), *arguments)
    second = call(Precise, simt.Run(), *arguments, along=(u, u))
    z, along = (np.concatenate(p).astype(float) for p in ((x[0], y[0]), (u[0], u[0])))
    oracle = Oracle(z, N, along, (0, 2 * N), False, [kind], [theta], [theta], np.array([[1.0], [0.5], [-1.0]]))
    expected = oracle.sums, oracle.theta_sums, oracle.along_sums, oracle.along_theta_sums
    for actual, exact in zip([first[0][0], first[1][0], second[0][0], second[1][0]], expected):
        np.testing.assert_allclose(actual, exact, rtol=0, atol=FAR_APART * abs(exact).max())
    for results, exact in ((first, oracle.grad), (second, oracle.along_grad)):
        grad = np.concatenate([results[2][0], results[3][0]]).astype(float)
        np.testing.assert_allclose(grad, exact, rtol=0, atol=FAR_APART * abs(exact).max() + 1e-37)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_gradients_of_far_clusters_in_many_features(simt, dtype):
    """What z_i sum w_ij and sum w_ij z_j have in common cancels in every chunk of the features, to what distances
    allow: an error of |z|^2 times a few roundings."""
    rng = np.random.default_rng(16)
    N, D = (8, 65) if QUICK else (24, 200)
    centre = rng.normal(size=D)
    centre *= (60 / (centre**2).sum()) ** 0.5
    z = centre * np.where(np.arange(2 * N) % 2, 1, -1)[:, None] + rng.normal(size=(2 * N, D)) / (8 * D) ** 0.5
    x, y = (place(half[None], dtype) for half in (z[:N], z[N:]))
    mixture = simt.Mixture([RBF], [0.5**0.5], [1.0, 1.0, -2.0])
    results = call(simt, simt.Run(), dtype, (x, y), (0, 2 * N), False, mixture, 1)
    weights = np.array([[[1.0], [1.0], [-2.0]]])
    ((_, oracle),) = oracles((x, y), (x, y), dtype, N, (0, 2 * N), False, [RBF], [0.5**0.5], [0.0], weights)
    grad = np.concatenate([to_values(g[0], dtype) for g in results[2:]])
    rounding = {"float64": 2.0**-48, "float32": 2.0**-20}.get(dtype, TOLERANCE[dtype] / 60)
    assert abs(grad - oracle.grad).max() < 60 * rounding * abs(oracle.grad).max()


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_coincident_points(simt, dtype):
    rng = np.random.default_rng(11)
    x = rng.normal(size=(1, 6, 3))
    x[:, 1] = x[:, 0]
    y = np.concatenate([x[:, :2], rng.normal(size=(1, 3, 3))], 1)
    same = np.tile(x[:, :1], (1, 5, 1))
    for points in ((x, y), (x, x), (same, same)):
        stored = [place(p, dtype) for p in points]
        along = [place(rng.normal(size=p.shape), dtype) for p in points]
        N, P = stored[0].shape[1], stored[0].shape[1] + stored[1].shape[1]
        weights = np.array([[[1, 0.5], [1, 0.5], [-2, -1]]])
        for kinds in ([RBF, IMQ], [MATERN32, POLYNOMIAL], [LAPLACIAN, ENERGY], [MATERN52, RATIONAL_QUADRATIC]):
            inputs = *stored, *along, kinds, [0.9, 1.1], [0.3, -0.2], weights
            check_everything(simt, dtype, N, (0, P), POLYNOMIAL in kinds, inputs, f"coincident, {kinds}")


def test_points_nearer_than_float_can_tell(simt):
    """The squares of their distances are too small to be normal numbers, and 0 to the hardware's roots."""
    rng = np.random.default_rng(18)
    x, y = (place(1e-20 * rng.normal(size=(1, P, 3)), "float32") for P in (6, 5))
    u, v = (place(rng.normal(size=p.shape), "float32") for p in (x, y))
    inputs = x, y, u, v, [MATERN32, RATIONAL_QUADRATIC], [0.9, 1.1], [0.3, -0.2], rng.normal(size=(1, 3, 2))
    check_everything(simt, "float32", 6, (0, 11), False, inputs, "1e-20 apart")


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_nan_and_infinity_propagate(simt, dtype, bad):
    rng = np.random.default_rng(12)
    x = rng.normal(size=(1, 5, 3))
    x[0, 1, 2] = bad
    x, y = place(x, dtype), place(rng.normal(size=(1, 4, 3)), dtype)
    for kind in KINDS:
        mixture = simt.Mixture([kind], [1.0], [1.0, 1.0, -2.0], [0.0], shapes_of([kind]))
        for along in (None, (x, y)):
            sums, _, *grads = call(simt, simt.Run(), dtype, (x, y), (0, 9), False, mixture, 1, along)
            assert np.isnan(sums[0, 2]).all() and all(np.isnan(to_values(g, dtype)).any() for g in grads)


def test_tf32_rounds_points_and_nothing_else(simt):
    """With points that TF32 holds, whose mean is 0, values are as good as ever; gradients round their weights."""
    rng = np.random.default_rng(13)
    half = np.round(rng.normal(size=(1, 20, 6)) * 256) / 256
    x, y = place(np.concatenate([half, -half], 1), "float32"), place(np.concatenate([half, -half], 1) / 2, "float32")
    weights = rng.normal(size=(1, 3, 1))
    mixture = simt.Mixture([RBF], [1.5], weights.ravel().tolist(), [0.0])
    results = {}
    for precision in ("ieee", "tf32"):
        outputs = [Output((1, 3, 1), np.float64), *[Output(p.shape, np.float32) for p in (x, y)]]
        sums, grad_x, grad_y = [output.array for output in outputs]
        arguments = simt.Run(), "float32", x, y, (0, 80), False, mixture, sums, None, grad_x, grad_y
        simt.kernel_sums(*arguments, precision=precision)
        results[precision] = [output.written() for output in outputs]
    ((_, oracle),) = oracles((x, y), (x, y), "float32", 40, (0, 80), False, [RBF], [1.5], [0.0], weights)
    assert_near(results["tf32"][0][0], oracle.sums, oracle.magnitude, 2e-6, "sums")
    errors = {p: abs(np.concatenate([r[1][0], r[2][0]]) - oracle.grad).max() for p, r in results.items()}
    assert errors["ieee"] < 2e-6 * oracle.grad_magnitude
    assert errors["ieee"] < errors["tf32"] < 2.0**-11 * oracle.grad_magnitude
