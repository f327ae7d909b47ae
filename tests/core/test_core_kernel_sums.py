"""kernel_sums, its tangent, and kernel_matvec, against the formulas in float64 by differences of points."""

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, STORAGE, WIDE, Output, for_any_threads, place, to_values

RBF, IMQ = 0, 1
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


def kernel_terms(kind, t, s):
    """k, k_s, k_ss, k_t, k_st, k_tt."""
    if kind == RBF:
        k = np.exp(-s / (2 * t**2))
        return (k, -k / (2 * t**2), k / (4 * t**4), k * s / t**3, k / t**3 * (1 - s / (2 * t**2)),
                k * (s**2 / t**6 - 3 * s / t**4))  # fmt: skip
    d = t + s
    return t / d, -t / d**2, 2 * t / d**3, s / d**2, (t - s) / d**3, -2 * s / d**3


class Oracle:
    """Sums, gradients and tangents of one problem; z are the points of both sets, u a direction of them."""

    def __init__(self, z, N, u, rows, diagonal, kinds, thetas, along_thetas, weights):
        P = len(z)
        in_y, index = np.arange(P) >= N, np.arange(P)
        block = np.where(in_y[:, None] == in_y[None, :], np.where(in_y, 1, 0)[:, None], 2)
        owner = np.minimum(index[:, None], index[None, :])
        # Ordered pairs: (i, j) and (j, i) both count within a set, and once between the sets.
        counted = ((owner >= rows[0]) & (owner < rows[1]) & (index[:, None] != index)) * np.where(block == 2, 0.5, 1.0)
        selves = diagonal * np.array(
            [np.sum((index >= rows[0]) & (index < rows[1]) & (in_y == b)) for b in (0, 1)] + [0]
        )
        z = z - z.mean(0) if P else z
        differences, along = z[:, None] - z[None, :], u[:, None] - u[None, :]
        s, along_s = (differences**2).sum(-1), 2 * (differences * along).sum(-1)
        C = len(kinds)
        self.sums, self.theta_sums, self.along_sums, self.along_theta_sums = np.zeros((4, 3, C))
        self.magnitude, self.along_magnitude = np.zeros((2, 3, C))
        w, along_w = np.zeros((2, P, P))
        for c in range(C):
            k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(kinds[c], thetas[c], s)
            k0 = kernel_terms(kinds[c], thetas[c], np.zeros(()))
            a = along_thetas[c]
            noise = 1 + (z**2).sum(-1).max(initial=0) / (thetas[c] ** 2 if kinds[c] == RBF else thetas[c])
            for b in range(3):
                pairs = counted * (block == b)
                self.sums[b, c] = (pairs * k).sum() + selves[b] * k0[0]
                self.theta_sums[b, c] = (pairs * k_t).sum() + selves[b] * k0[3]
                self.along_sums[b, c] = (pairs * (k_s * along_s + k_t * a)).sum() + selves[b] * k0[3] * a
                self.along_theta_sums[b, c] = (pairs * (k_st * along_s + k_tt * a)).sum() + selves[b] * k0[5] * a
                self.magnitude[b, c] = noise * (pairs * (k + abs(k_t))).sum() + selves[b]
                size = (
                    pairs
                    * (abs(k_s) + abs(k_st))
                    * (abs(along_s) + (abs(z).max(initial=0) * abs(u).max(initial=0) * z.shape[1]))
                ).sum()
                self.along_magnitude[b, c] = (
                    noise * (size + abs(a) * (pairs * (abs(k_t) + abs(k_tt))).sum()) + selves[b]
                )
            # A counted pair appears as (i, j) and as (j, i): both move point i.
            w += weights[block, c] * 2 * counted * k_s
            along_w += weights[block, c] * 2 * counted * (k_ss * along_s + k_st * a)
        self.grad = 2 * (w[..., None] * differences).sum(1)
        self.along_grad = 2 * (along_w[..., None] * differences + w[..., None] * along).sum(1)
        reach, reach_u = (np.abs(v).max(initial=0) for v in (z, u))
        self.grad_magnitude = 8 * (abs(w).sum(1).max(initial=0) * reach)
        self.along_grad_magnitude = 16 * (
            abs(along_w).sum(1).max(initial=0) * reach
            + abs(w).sum(1).max(initial=0) * (reach_u + reach**2 * reach_u * z.shape[1])
        )


def problem(rng, N, M, D, dtype, C):
    scale = 1 / np.sqrt(max(D, 1))
    x, y = place(scale * rng.normal(size=(2, N, D)), dtype), place(scale * rng.normal(size=(2, M, D)) + 0.3, dtype)
    u, v = place(scale * rng.normal(size=(2, N, D)), dtype), place(scale * rng.normal(size=(2, M, D)), dtype)
    kinds = [RBF, IMQ, RBF][:C]
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


def cases(rng, dtype):
    for index, (N, M, D) in enumerate(SIZES):
        rows = [(0, N + M), (0, N), ((N + M) // 3, N + M - 1)][index % 3]
        yield N, rows, index % 2 == 0, problem(rng, N, M, D, dtype, 1 + index % 3), f"{N}, {M}, {D}, rows {rows}"


@pytest.mark.parametrize("dtype", DTYPES)
def test_sums_gradients_and_tangents(core, isa, dtype):
    for N, rows, diagonal, (x, y, u, v, kinds, thetas, along_thetas, weights), message in cases(
        np.random.default_rng(3), dtype
    ):
        C = len(kinds)
        mixture = core.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas)
        arguments = dtype, (x, y), rows, diagonal, mixture, C
        results = for_any_threads(core, isa, lambda run: call(core, run, *arguments))  # noqa: B023
        tangents = for_any_threads(core, isa, lambda run: call(core, run, *arguments, along=(u, v)))  # noqa: B023
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


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_what_is_not_wanted_changes_nothing(core, isa, dtype):
    x, y, u, v, kinds, thetas, along_thetas, weights = problem(np.random.default_rng(4), 100, 30, 7, dtype, 2)
    mixture = core.Mixture(kinds, thetas, weights.ravel().tolist(), along_thetas)
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
        x, y, _, _, kinds, thetas, _, _ = problem(rng, N, M, D, dtype, 1 + index % 3)
        P, rows, diagonal, term = (1, 5, 17, 40)[index % 4], [(0, N), (N // 3, N)][index % 2], index % 3 > 0, index % 6
        v, weights = (
            place(rng.normal(size=(2, M, P)), {8: "float64", 4: "float32"}[np.dtype(WIDE[dtype]).itemsize]),
            rng.normal(size=len(kinds)),
        )
        mixture = core.Mixture(kinds, thetas, weights.tolist())

        def multiply(run):
            out = Output((2, rows[1] - rows[0], P), WIDE[dtype])  # noqa: B023
            core.kernel_matvec(run, dtype, x, y, v, rows, diagonal, term, mixture, out.array)  # noqa: B023
            return (out.written(),)

        (result,) = for_any_threads(core, isa, multiply)
        for b in range(2):
            a, c = to_values(x[b], dtype)[rows[0] : rows[1]], to_values(y[b], dtype)
            s = ((a[:, None] - c[None, :]) ** 2).sum(-1)
            each = [w * kernel_terms(kind, t, s)[term] for w, kind, t in zip(weights, kinds, thetas)]
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
