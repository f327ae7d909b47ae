"""kernel_sums, its tangent, and kernel_matvec, against the formulas in float64 by differences of points."""

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, STORAGE, WIDE, Output, for_any_threads, place, to_values

KINDS = RBF, IMQ, RATIONAL_QUADRATIC, LAPLACIAN, MATERN32, MATERN52, ENERGY, POLYNOMIAL = range(8)
SHAPES = {RATIONAL_QUADRATIC: 1.7, POLYNOMIAL: 3.0}
# Tiles hold 96 points; blocks of rows 6 and 8, panels 4 to 32; products are cut at 512 features.
SIZES = [
    (1, 1, 1),
    (1, 0, 2),
    (0, 3, 1),
    (2, 3, 0),
    (3, 2, 5),
    (8, 9, 16),
    (95, 1, 3),
    (96, 97, 4),
    (193, 33, 17),
    (4, 5, 515),
]
SIZES = SIZES[::2] if QUICK else SIZES
# Results in float are differences of rounded squares: relative to what they are sums of, with room for those squares.
TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2.0**-8, "float16": 2.0**-11}
SUMS_TOLERANCE = {"float64": 1e-13, "float32": 2e-6, "bfloat16": 2e-6, "float16": 2e-6}


def shapes_of(kinds):
    return [SHAPES.get(kind, 1.0) for kind in kinds]


def kernel_terms(kind, t, s):
    """k, k_s, k_ss, k_t, k_st, k_tt."""
    s, shape = np.asarray(s, np.float64), SHAPES.get(kind, 1.0)
    if kind == IMQ:
        d = t + s
        return t / d, -t / d**2, 2 * t / d**3, s / d**2, (t - s) / d**3, -2 * s / d**3
    if kind == POLYNOMIAL:
        b = s + t
        return b**3, 3 * b**2, 6 * b, 3 * b**2, 6 * b, 6 * b
    r = np.sqrt(s)
    over_r = np.divide(1, r, out=np.zeros_like(r), where=r > 0)
    if kind == ENERGY:
        return -r, -over_r / 2, over_r**3 / 4, 0 * s, 0 * s, 0 * s
    if kind == RBF:
        k = np.exp(-s / (2 * t**2))
        k_s, k_ss = -k / (2 * t**2), k / (4 * t**4)
    elif kind == RATIONAL_QUADRATIC:
        b, rate = 1 + s / (2 * shape * t**2), 1 / (2 * shape * t**2)
        k, k_s, k_ss = b**-shape, -shape * rate * b ** (-shape - 1), shape * (shape + 1) * rate**2 * b ** (-shape - 2)
    elif kind == LAPLACIAN:
        k = np.exp(-r / t)
        k_s, k_ss = -k * over_r / (2 * t), k * over_r**2 * (over_r + 1 / t) / (4 * t)
    elif kind == MATERN32:
        c = np.sqrt(3) / t
        k, k_s, k_ss = (1 + c * r) * np.exp(-c * r), -(c**2) / 2 * np.exp(-c * r), c**3 / 4 * np.exp(-c * r) * over_r
    else:
        c = np.sqrt(5) / t
        k = (1 + c * r + c**2 * s / 3) * np.exp(-c * r)
        k_s, k_ss = -(c**2) / 6 * (1 + c * r) * np.exp(-c * r), c**4 / 12 * np.exp(-c * r)
    # These are functions of s / t^2.
    k_st = -2 * (k_s + s * k_ss) / t
    return k, k_s, k_ss, -2 * s * k_s / t, k_st, -2 * s * (k_st - k_s / t) / t


def matrix_of(kind, t, a, c):
    """The terms of all pairs of points."""
    return kernel_terms(kind, t, a @ c.T if kind == POLYNOMIAL else ((a[:, None] - c[None, :]) ** 2).sum(-1))


def roughness(kind, t, s, largest):
    """By how much more than its own size a term of a pair is off, as s is a difference of squares up to `largest`."""
    if kind == IMQ:
        return 1 + largest / t
    if kind in (LAPLACIAN, ENERGY):  # of which s is always computed in double
        return 1 + largest * np.divide(1, s, out=np.zeros_like(s), where=s > 0)
    return 1 + largest / t**2


class Oracle:
    """Sums, gradients and tangents of one problem; x are the points of both sets, u a direction of them."""

    def __init__(self, x, N, u, rows, diagonal, kinds, thetas, along_thetas, weights):
        P, C = len(x), len(kinds)
        in_y, index = np.arange(P) >= N, np.arange(P)
        block = np.where(in_y[:, None] == in_y[None, :], np.where(in_y, 1, 0)[:, None], 2)
        owner = np.minimum(index[:, None], index[None, :])
        # Ordered pairs: (i, j) and (j, i) both count within a set, and once between the sets.
        owned = (owner >= rows[0]) & (owner < rows[1])
        counted = owned * np.where(index[:, None] != index, np.where(block == 2, 0.5, 1.0), float(diagonal))
        z = x - x.mean(0) if P else x
        largest = (z**2).sum(-1).max(initial=0)
        differences, along_differences = z[:, None] - z[None, :], u[:, None] - u[None, :]
        self.sums, self.theta_sums, self.along_sums, self.along_theta_sums = np.zeros((4, 3, C))
        self.magnitude, self.along_magnitude = np.zeros((2, 3, C))
        self.grad, self.along_grad = np.zeros((2, *x.shape))
        self.grad_magnitude = self.along_grad_magnitude = 0.0
        for c, (kind, theta, a) in enumerate(zip(kinds, thetas, along_thetas)):
            if kind == POLYNOMIAL:
                s, along_s = x @ x.T, u @ x.T + x @ u.T
                by_points, along_points = np.broadcast_to(x, (P, *x.shape)), np.broadcast_to(u, (P, *x.shape))
                sizes = [
                    np.broadcast_to(each, s.shape) for each in kernel_terms(kind, theta, (x**2).sum(-1).max(initial=0))
                ]
                rough = 1.0
            else:
                s, along_s = (differences**2).sum(-1), 2 * (differences * along_differences).sum(-1)
                by_points, along_points = 2 * differences, 2 * along_differences
                sizes, rough = kernel_terms(kind, theta, s), roughness(kind, theta, s, largest)
            k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(kind, theta, s)
            sizes = [abs(each) * rough for each in sizes]
            reach, reach_u = np.abs(by_points).max(initial=0), np.abs(along_points).max(initial=0)
            reach_s = abs(along_s) + np.abs(x).max(initial=0) * np.abs(u).max(initial=0) * x.shape[1]
            for b in range(3):
                pairs = counted * (block == b)
                self.sums[b, c], self.theta_sums[b, c] = (pairs * k).sum(), (pairs * k_t).sum()
                self.along_sums[b, c] = (pairs * (k_s * along_s + k_t * a)).sum()
                self.along_theta_sums[b, c] = (pairs * (k_st * along_s + k_tt * a)).sum()
                self.magnitude[b, c] = (pairs * (sizes[0] + sizes[3])).sum()
                self.along_magnitude[b, c] = (
                    pairs * ((sizes[1] + sizes[4]) * reach_s + abs(a) * (sizes[3] + sizes[5]))
                ).sum()
            # A counted pair appears as (i, j) and as (j, i): both move point i.
            w = weights[block, c] * 2 * counted
            along_k_s = k_ss * along_s + k_st * a
            self.grad += ((w * k_s)[..., None] * by_points).sum(1)
            self.along_grad += ((w * along_k_s)[..., None] * by_points + (w * k_s)[..., None] * along_points).sum(1)
            w = abs(w)
            self.grad_magnitude += 4 * (w * sizes[1]).sum(1).max(initial=0) * reach
            self.along_grad_magnitude += 8 * (
                (w * (sizes[2] * reach_s + sizes[4] * abs(a))).sum(1).max(initial=0) * reach
                + (w * sizes[1]).sum(1).max(initial=0) * reach_u
            )


def problem(rng, N, M, D, dtype, C, first=None):
    """first: the kind to begin with; others follow, up to C."""
    scale = 1 / np.sqrt(max(D, 1))
    x, y = place(scale * rng.normal(size=(2, N, D)), dtype), place(scale * rng.normal(size=(2, M, D)) + 0.3, dtype)
    u, v = place(scale * rng.normal(size=(2, N, D)), dtype), place(scale * rng.normal(size=(2, M, D)), dtype)
    kinds = [RBF, IMQ, RBF][:C] if first is None else [KINDS[(first + 3 * c) % len(KINDS)] for c in range(C)]
    return x, y, u, v, kinds, [0.8, 1.2, 2.0][:C], [0.4, -0.7, 0.1][:C], rng.normal(size=(2, 3, C))


def call(core, run, dtype, points, rows, diagonal, mixture, C, along=None, wants=(True, True, True)):
    """[sums, theta_sums, grad_x, grad_y], without those not wanted; of the tangent if `along` is given."""
    outputs = [Output((len(points[0]), 3, C), np.float64), *[Output(p.shape, STORAGE[dtype]) for p in points]]
    results = [output.array if want else None for output, want in zip(outputs, wants)]
    sums = Output((len(points[0]), 3, C), np.float64)
    function = core.kernel_sums if along is None else core.kernel_sums_tangent
    function(run, dtype, *points, *(along or ()), rows, diagonal, mixture, sums.array, *results)
    return [sums.written(), *[output.written() for output, want in zip(outputs, wants) if want]]


def assert_near(actual, expected, magnitude, tolerance, message):
    error = np.abs(actual - expected) - tolerance * np.maximum(magnitude, np.abs(expected)) - 1e-30
    assert (error <= 0).all(), f"{message}: off by {np.abs(actual - expected).max()}, magnitude {np.max(magnitude)}"


def cases(rng, dtype, shift):
    for index, (N, M, D) in enumerate(SIZES):
        rows = [(0, N + M), (0, N), ((N + M) // 3, N + M - 1)][index % 3]
        index += shift
        yield N, rows, index % 2 == 0, problem(rng, N, M, D, dtype, 1 + index % 3, index), f"{N}, {M}, {D}, rows {rows}"


def check_everything(core, isa, dtype, N, rows, diagonal, inputs, message):
    x, y, u, v, kinds, thetas, along_thetas, weights = inputs
    mixture = core.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas, shapes_of(kinds))
    arguments = dtype, (x, y), rows, diagonal, mixture, len(kinds)
    results = for_any_threads(core, isa, lambda run: call(core, run, *arguments))
    tangents = for_any_threads(core, isa, lambda run: call(core, run, *arguments, along=(u, v)))
    for b in range(2):
        z, direction = (np.concatenate([to_values(p[b], dtype) for p in pair]) for pair in ((x, y), (u, v)))
        oracle = Oracle(z, N, direction, rows, diagonal, kinds, thetas, along_thetas, weights[b])
        exact, size, grad_size = SUMS_TOLERANCE[dtype], oracle.magnitude, oracle.grad_magnitude
        assert_near(results[0][b], oracle.sums, size, exact, f"sums, {message}")
        assert_near(results[1][b], oracle.theta_sums, size, exact, f"theta sums, {message}")
        grad = np.concatenate([to_values(g[b], dtype) for g in results[2:]])
        assert_near(grad, oracle.grad, grad_size, TOLERANCE[dtype], f"gradient, {message}")
        size, grad_size = oracle.along_magnitude, oracle.along_grad_magnitude
        assert_near(tangents[0][b], oracle.along_sums, size, exact, f"sums along, {message}")
        assert_near(tangents[1][b], oracle.along_theta_sums, size, exact, f"theta sums along, {message}")
        grad = np.concatenate([to_values(g[b], dtype) for g in tangents[2:]])
        assert_near(grad, oracle.along_grad, grad_size, TOLERANCE[dtype], f"gradient along, {message}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_gradients_and_tangents(core, isa, dtype):
    for N, rows, diagonal, inputs, message in cases(np.random.default_rng(3), dtype, DTYPES.index(dtype) * 2):
        check_everything(core, isa, dtype, N, rows, diagonal, inputs, message)


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_not_wanted_changes_nothing(core, isa, dtype):
    x, y, u, v, kinds, thetas, along_thetas, weights = problem(np.random.default_rng(4), 100, 30, 7, dtype, 2)
    mixture = core.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas, shapes_of(kinds))
    for along in (None, (u, v)):
        arguments = core, core.Run(isa), dtype, (x, y), (0, 130), False, mixture, 2, along
        everything = call(*arguments)
        for wants in np.ndindex(2, 2, 2):
            some = call(*arguments, wants=wants)
            expected = [everything[0], *[r for r, want in zip(everything[1:], wants) if want]]
            for actual, same in zip(some, expected):
                np.testing.assert_array_equal(actual, same)
    zeros = call(core, core.Run(isa), dtype, (x, y), (0, 130), False, mixture, 2, (None, v))
    same = call(core, core.Run(isa), dtype, (x, y), (0, 130), False, mixture, 2, (np.zeros_like(u), v))
    for actual, expected in zip(zeros, same):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize("dtype", DTYPES)
def test_matvec(core, isa, dtype):
    rng = np.random.default_rng(5)
    for index, (N, M, D) in enumerate(SIZES):
        x, y, _, _, kinds, thetas, _, _ = problem(rng, N, M, D, dtype, 1 + index % 3, index)
        P, rows, diagonal, term = (1, 5, 17, 40)[index % 4], [(0, N), (N // 3, N)][index % 2], index % 3 > 0, index % 6
        v, weights = (
            place(rng.normal(size=(2, M, P)), {8: "float64", 4: "float32"}[np.dtype(WIDE[dtype]).itemsize]),
            rng.normal(size=len(kinds)),
        )
        mixture = core.Mixture(kinds, thetas, weights.tolist(), [], shapes_of(kinds))

        def multiply(run):
            out = Output((2, rows[1] - rows[0], P), WIDE[dtype])  # noqa: B023
            core.kernel_matvec(run, dtype, x, y, v, rows, diagonal, term, mixture, out.array)  # noqa: B023
            return (out.written(),)

        (result,) = for_any_threads(core, isa, multiply)
        for b in range(2):
            a, c = to_values(x[b], dtype)[rows[0] : rows[1]], to_values(y[b], dtype)
            each = [w * matrix_of(kind, t, a, c)[term] for w, kind, t in zip(weights, kinds, thetas)]
            self_pairs = np.arange(rows[0], rows[1])[:, None] == np.arange(M)[None, :]
            matrix = sum(each) * (diagonal | ~self_pairs)
            magnitude = 30 * (sum(map(np.abs, each)) + 1).sum(1, keepdims=True) * np.abs(v).max(initial=0)
            assert_near(result[b], matrix @ v[b], magnitude, SUMS_TOLERANCE[dtype], f"{N}, {M}, {D}, {P}, term {term}")


def test_a_range_of_float32_that_float64_has_to_serve(core, isa):
    rng = np.random.default_rng(6)
    x = place(0.01 * rng.normal(size=(2, 40, 3)) + np.where(np.arange(40) % 2, 500.0, 0.0)[None, :, None], "float32")
    mixture = core.Mixture([RBF], [0.02], [1.0] * 6, [0.0])
    (sums, _, grad_x, grad_y) = call(core, core.Run(isa), "float32", (x, x), (0, 80), False, mixture, 1)
    for b in range(2):
        z = np.concatenate([x[b], x[b]]).astype(np.float64)
        oracle = Oracle(z, 40, 0 * z, (0, 80), False, [RBF], [0.02], [0.0], np.ones((3, 1)))
        np.testing.assert_allclose(sums[b], oracle.sums, rtol=1e-8)
        np.testing.assert_allclose(np.concatenate([grad_x[b], grad_y[b]]), oracle.grad, rtol=1e-5, atol=1e-5)
