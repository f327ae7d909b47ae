"""Every kernel of wgan_kernels.kernels, alone and in sums: values and derivatives against formulas of differences."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from cases import DTYPES, assert_same_error, compile_once, leaf, samples
from test_kernel_sums import derivatives, one_sweep
from tolerances import (
    COINCIDENT,
    FAR_FROM_ORIGIN,
    FLOAT32_DISTANCES,
    FLOOR,
    KERNEL_VALUE,
    ON_A_LINE,
    SECOND_DERIVATIVE,
    assert_same_by_another_route,
    largest,
)
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck

import wgan_kernels as wk
from wgan_kernels import kernels, pair_sums
from wgan_kernels.ops.kernel_sums import kernel_sums


def matern(s: Tensor, r: Tensor, nu: float, length: float) -> Tensor:
    """Where points coincide, by its series in s, which has the derivatives that r hides."""
    a = (2 * nu) ** 0.5 * r / length
    if nu == 1.5:
        return torch.where(s == 0, 1 - 1.5 * s / length**2, (1 + a) * torch.exp(-a))
    series = 1 - 5 * s / (6 * length**2) + 25 * s**2 / (24 * length**4)
    return torch.where(s == 0, series, (1 + a + a**2 / 3) * torch.exp(-a))


# Each with its formula, of the squared distance, the distance and the product of two points.
FORMULAS: dict[kernels.Kernel, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    kernels.RBF([0.8, 2.0]): lambda s, r, p: torch.exp(-s / 1.28) + torch.exp(-s / 8),
    kernels.InverseMultiquadric(1.5): lambda s, r, p: 1.5 / (1.5 + s),
    kernels.RationalQuadratic((0.2, 1.0, 5.0), 1.3): lambda s, r, p: sum(
        (1 + s / (2 * alpha * 1.69)) ** -alpha for alpha in (0.2, 1.0, 5.0)
    ),
    kernels.Laplacian(1.7): lambda s, r, p: torch.exp(-r / 1.7),
    kernels.Matern(1.5, 1.4): lambda s, r, p: matern(s, r, 1.5, 1.4),
    kernels.Matern(2.5, 0.9): lambda s, r, p: matern(s, r, 2.5, 0.9),
    kernels.Energy(): lambda s, r, p: -r,
    kernels.Polynomial(3, 0.2, 1.0): lambda s, r, p: (0.2 * p + 1) ** 3,
    kernels.Polynomial(2, 0.5, 0.0): lambda s, r, p: (0.5 * p) ** 2,
    kernels.Linear(): lambda s, r, p: p,
    0.5 * kernels.RBF(1.0) + kernels.Linear() + 0.2 * kernels.Laplacian(2.0): lambda s, r, p: (
        0.5 * torch.exp(-s / 2) + p + 0.2 * torch.exp(-r / 2)
    ),
}
EACH = pytest.mark.parametrize("kernel", FORMULAS, ids=lambda kernel: str(kernel).replace("wgan_kernels.kernels.", ""))


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def formula_matrix(x: Tensor, y: Tensor, kernel: kernels.Kernel) -> Tensor:
    """(N, M), in float64, from differences of points."""
    x, y = x.double(), y.double()
    s = (x[:, None] - y[None, :]).square().sum(-1)
    together = s == 0
    r = torch.where(together, 0.0, torch.where(together, 1.0, s).sqrt())  # whose derivatives at 0 are taken as 0
    return FORMULAS[kernel](s, r, x @ y.T)


def formula_mmd2(x: Tensor, y: Tensor, kernel: kernels.Kernel, biased: bool) -> Tensor:
    n, m = len(x), len(y)
    k_xx, k_yy = formula_matrix(x, x, kernel), formula_matrix(y, y, kernel)
    if biased:
        within = k_xx.mean() + k_yy.mean()
    else:
        within = (k_xx.sum() - k_xx.trace()) / (n * (n - 1)) + (k_yy.sum() - k_yy.trace()) / (m * (m - 1))
    return within - 2 * formula_matrix(x, y, kernel).mean()


def assert_near(actual: Tensor, exact: Tensor, size: float, what: str) -> None:
    """Off by no more than rounding, of what the result's dtype and float32 distances have of it."""
    eps = torch.finfo(actual.dtype).eps
    error, allowed = largest(actual.double() - exact), FLOOR[actual.dtype] * eps * max(size, largest(exact))
    allowed += 0 if actual.dtype == torch.float64 else FLOAT32_DISTANCES * torch.finfo(torch.float32).eps * size
    assert error <= allowed, f"{what}: error {error:.3g}, allowed {allowed:.3g}"


@EACH
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_and_derivatives(backend: str, dtype: torch.dtype, kernel: kernels.Kernel) -> None:
    for N, M, D in ((7, 5, 3), (97, 20, 5), (3, 130, 4), (30, 40, 1)):
        x, y = samples((N, D), dtype, seed=1), samples((M, D), dtype, seed=2) + 0.5
        along = [samples(t.shape, dtype, seed=20 + k) for k, t in enumerate((x, y))]
        for biased in (False, True):
            estimator = "biased" if biased else "unbiased"
            ours = lambda x, y, e=estimator: wk.mmd2(x, y, kernel, estimator=e)  # noqa: E731
            value, first, second = derivatives(ours, (x, y), along)
            exact = derivatives(
                lambda x, y, b=biased: formula_mmd2(x, y, kernel, b),
                (x.double(), y.double()),
                [u.double() for u in along],
            )
            where = f"{estimator}, {N}, {M}, {D}"
            terms = formula_matrix(torch.cat([x, y]), torch.cat([x, y]), kernel).abs().max().item()
            assert_near(value, exact[0], 4 * terms, f"value, {where}")
            # Neighbours on a line are near, and the root of a difference of squares has as many digits less.
            rough = 1 if D > 1 else ON_A_LINE
            for each in (first, one_sweep(ours, (x, y))):
                for result, good in zip(each, exact[1], strict=True):
                    assert_near(result, good, rough * largest(good), f"gradient, {where}")
            for result, good in zip(second, exact[2], strict=True) if D > 1 else ():
                assert_near(result, good, SECOND_DERIVATIVE * largest(good), f"second derivative, {where}")


@EACH
def test_gradcheck_and_gradgradcheck(backend: str, kernel: kernels.Kernel) -> None:
    x, y, v = (leaf(samples(shape, torch.float64, seed=seed)) for seed, shape in enumerate([(5, 3), (4, 3), (4, 2)]))
    for function, inputs in (
        (lambda x, y: wk.mmd2(x, y, kernel), (x, y)),
        (lambda x, y: wk.mmd2(x, y, kernel, estimator="biased") ** 2, (x, y)),
        (lambda x, y, v: wk.kernel_matvec(x, y, v, kernel), (x, y, v)),
        (lambda x, v: pair_sums.matvec(x, x, v, kernel, diagonal=False), (y, v)),
    ):
        assert gradcheck(function, inputs) and gradgradcheck(function, inputs)


def learned(by: Callable[[Tensor], kernels.Kernel]) -> Callable[..., Tensor]:
    return lambda theta, x, y: wk.mmd2(x, y, by(theta))


LEARNED = {
    "bandwidths": lambda t: kernels.RBF(t),
    "scales": lambda t: kernels.InverseMultiquadric(t),
    "rational quadratic": lambda t: kernels.RationalQuadratic((0.5, 2.0), t),
    "one length": lambda t: kernels.RationalQuadratic((0.5, 2.0), t[0]) + t[1] * kernels.RBF(1.0),
    "laplacian": lambda t: kernels.Laplacian(t),
    "matern": lambda t: kernels.Matern(1.5, t[0]) + kernels.Matern(2.5, t[1]),
    "polynomial": lambda t: kernels.Polynomial(3, t[0], t[1]),
    "weights": lambda t: t[0] * kernels.RBF(1.0) + t[1] * kernels.Polynomial(2) + kernels.Energy(),
    "weights of sums": lambda t: t[0] * (t[1] * kernels.RBF((1.0, 2.0)) + 0.5 * kernels.Linear()),
}


@pytest.mark.parametrize("name", LEARNED)
def test_parameters_and_weights_are_learned(backend: str, name: str) -> None:
    x, y = leaf(samples((5, 3), torch.float64, seed=1)), leaf(samples((4, 3), torch.float64, seed=2) + 0.4)
    theta = leaf(torch.tensor([0.9, 1.4], dtype=torch.float64))
    function = learned(LEARNED[name])
    assert gradcheck(function, (theta, x, y)) and gradgradcheck(function, (theta, x, y))
    v = leaf(samples((4, 2), torch.float64, seed=3))
    product = lambda theta, x, v: wk.kernel_matvec(x, y.detach(), v, LEARNED[name](theta))  # noqa: E731
    assert gradcheck(product, (theta, x, v)) and gradgradcheck(product, (theta, x, v))


def test_a_learned_kernel_follows_its_parameter(backend: str) -> None:
    """Read at every call, also after a step in place, and from float32."""
    x, y = samples((9, 2), torch.float32), samples((7, 2), torch.float32, seed=1) + 1
    bandwidth = torch.nn.Parameter(torch.tensor(1.0))
    kernel = bandwidth * (0.5 * kernels.RBF(bandwidth)) + kernels.Linear()
    for value in (1.0, 2.5):
        with torch.no_grad():
            bandwidth.fill_(value)
        result = wk.mmd2(x, y, kernel)
        fixed = 0.5 * value * kernels.RBF(value) + kernels.Linear()
        assert_same_by_another_route(result.detach(), wk.mmd2(x, y, fixed))
        (grad,) = torch.autograd.grad(result, bandwidth)
        assert grad.dtype == torch.float32 and grad != 0


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_coincident_points(backend: str, dtype: torch.dtype, kernel: kernels.Kernel) -> None:
    """Within a sample and across both: finite, and 0 where a cusp has no derivative."""
    x = samples((8, 3), dtype, seed=1)
    x[3] = x[0]
    y = torch.cat([x[:2], samples((3, 3), dtype, seed=2)])
    along = [samples(t.shape, dtype, seed=20 + k) for k, t in enumerate((x, y))]
    results = derivatives(lambda x, y: wk.mmd2(x, y, kernel), (x, y), along)
    exact = derivatives(
        lambda x, y: formula_mmd2(x, y, kernel, False), (x.double(), y.double()), [u.double() for u in along]
    )
    for result, good in zip((results[0], *results[1], *results[2]), (exact[0], *exact[1], *exact[2]), strict=True):
        assert result.isfinite().all()
        assert largest(result.double() - good) <= COINCIDENT * torch.finfo(dtype).eps * max(largest(good), 1.0) * (
            FLOOR[dtype] if dtype == torch.float64 else 1
        )


@EACH
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_points_far_from_the_origin(backend: str, dtype: torch.dtype, kernel: kernels.Kernel) -> None:
    """Mean 100, standard deviation 0.01: held to the same points, taken exactly."""
    x, y = (100 + 0.01 * samples((n, 4), torch.float64, seed=n) for n in (40, 30))
    x, y = leaf(x.to(dtype)), leaf((y + 0.01).to(dtype))
    of_products = "polynomial" in kernel.components(4).kinds
    value = wk.mmd2(x, y, kernel, estimator="biased")
    grad = torch.autograd.grad(value, x)[0]
    wide = leaf(x.detach().double())
    exact = formula_mmd2(wide, y.detach().double(), kernel, True)
    # k(x, y) is about (1e4)^p, of which the MMD is a small difference, in float64 as well.
    size = formula_matrix(x.detach()[:1], y.detach()[:1], kernel).abs().item() if of_products else 1.0
    eps = torch.finfo(torch.float64).eps
    assert (
        abs(value.item() - exact.item())
        <= FAR_FROM_ORIGIN[dtype] * abs(exact.item()) + FLOOR[torch.float64] * eps * size
    )
    good = torch.autograd.grad(exact, wide)[0]
    rough = FLOOR[torch.float64] * eps * size
    assert largest(grad.double() - good) <= FAR_FROM_ORIGIN[dtype] * max(largest(good), 1e-3) + rough


def test_values_of_float32_are_right_to_a_few_roundings(native: None) -> None:
    """At distances up to the scale of the kernel, one pair at a time."""
    s = torch.linspace(0.01, 1.0, 97)
    x, y = torch.zeros(1, 1), s[:, None].sqrt()
    for kernel, formula in FORMULAS.items():
        if "polynomial" not in kernel.components(1).kinds:
            values = wk.kernel_matvec(y, x, torch.ones(1), kernel)
            exact = formula(y[:, 0].double() ** 2, y[:, 0].double(), torch.zeros(97, dtype=torch.float64))
            allowed = KERNEL_VALUE[torch.float32] * len(kernel.components(1).kinds) * torch.finfo(torch.float32).eps
            assert largest(values.double() - exact) <= allowed, kernel


def test_infinite_and_missing_numbers_are_not_hidden(backend: str) -> None:
    for kernel in FORMULAS:
        for bad in (math.nan, math.inf):
            x, y = samples((6, 2), torch.float32), samples((5, 2), torch.float32, seed=1)
            x[2, 1] = bad
            assert not wk.mmd2(x, y, kernel).isfinite(), f"{kernel}, {bad}"


def test_fixed_numbers_alone_take_the_short_way(native: None) -> None:
    """Components of numbers are made once, and the value is the one function of the graph."""
    kernel = 2 * kernels.RBF((1.0, 2.0)) + kernels.RationalQuadratic((0.5, 1.0)) * 0.5
    kinds, shapes, params, weights = made = kernel.components(7)
    assert kinds == ("rbf", "rbf", "rational_quadratic", "rational_quadratic")
    assert (shapes, params, weights) == ((1.0, 1.0, 0.5, 1.0), (1.0, 2.0, 1.0, 1.0), (2.0, 2.0, 0.5, 0.5))
    assert kernel.components(7) is made and kernels.RBF(1.0).components(3).weights is None
    assert kernels.Polynomial().components(4).params == (4.0,) and kernels.Polynomial().components(5).params == (5.0,)
    value = wk.mmd2(leaf(samples((5, 7), torch.float32)), samples((4, 7), torch.float32), kernel)
    assert value.grad_fn.name() == "kernel_sums_valueBackward"
    assert [f.name() for f, _ in value.grad_fn.next_functions if f] == ["torch::autograd::AccumulateGrad"]


def test_python_adds_kernels_up(backend: str) -> None:
    x, y = samples((5, 3), torch.float64), samples((4, 3), torch.float64, seed=1)
    each = [kernels.RBF(1.0), kernels.Linear(), kernels.Energy()]
    assert_same_by_another_route(wk.mmd2(x, y, sum(each)), sum(wk.mmd2(x, y, kernel) for kernel in each))


def test_compiled(backend: str) -> None:
    x, y = leaf(samples((6, 3), torch.float64)), samples((5, 3), torch.float64, seed=1)
    theta = leaf(torch.tensor(1.2, dtype=torch.float64))
    kernel = theta * kernels.Matern(1.5, theta) + kernels.Polynomial()
    function = lambda x: wk.mmd2(x, y, kernel)  # noqa: E731
    expected, compiled = function(x), compile_once(function, backend)(x)
    assert_same_by_another_route(compiled.detach(), expected.detach())
    for ours, plain in zip(*(torch.autograd.grad(v, (x, theta)) for v in (compiled, expected))):
        assert_same_by_another_route(ours, plain)


def test_opcheck_with_shapes(native: None) -> None:
    x, y = samples((6, 5), torch.float64), samples((4, 5), torch.float64, seed=1)
    params, codes, shapes = torch.tensor([[1.0], [2.0]], dtype=torch.float64), [2, 7], [0.5, 3.0]
    weights, v = samples((3, 2), torch.float64), samples((4, 2), torch.float64)
    for operator, arguments in (
        (torch.ops.wgan_kernels.kernel_sums, (leaf(x), leaf(y), leaf(weights), leaf(params))),
        (torch.ops.wgan_kernels.kernel_matvec, (leaf(x), leaf(y), leaf(v), leaf(weights[0]), leaf(params))),
    ):
        last = (7,) if operator is torch.ops.wgan_kernels.kernel_sums else ()
        settings = (codes, shapes, False, *(() if last else (0,)), 0, -1, False, *last)
        results = torch.library.opcheck(operator.default, (*arguments, *settings))
        assert set(results.values()) == {"SUCCESS"}


def test_ranges_add_up_with_products(native: None) -> None:
    x, y = samples((150, 3), torch.float64), samples((60, 3), torch.float64, seed=1)
    for diagonal in (False, True):
        arguments = x, y, ("polynomial", "matern32"), (0.5, 1.0), (1.0, 1.0, -2.0)
        settings = {"shapes": (3.0, 1.0), "diagonal": diagonal}
        _, whole = kernel_sums(*arguments, **settings)
        parts = [kernel_sums(*arguments, **settings, begin=a, end=b)[1] for a, b in ((0, 96), (96, 170), (170, 210))]
        assert_same_by_another_route(sum(parts), whole)


def test_kernels_for_wae() -> None:
    assert kernels.InverseMultiquadric.for_prior(8, scales=(1.0,)) == kernels.InverseMultiquadric([16.0])
    mixture = kernels.InverseMultiquadric.for_prior(8, 2.0).components(8)
    assert mixture.params == tuple(32.0 * scale for scale in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0))


def test_polynomial_takes_the_features_of_the_points(backend: str) -> None:
    x, y = samples((6, 4), torch.float64), samples((5, 4), torch.float64, seed=1)
    assert wk.mmd2(x, y, kernels.Polynomial()) == wk.mmd2(x, y, kernels.Polynomial(3, 0.25, 1.0))


def test_errors() -> None:
    for make, error, words in (
        (lambda: kernels.Laplacian(0.0), ValueError, "bandwidth must be greater than 0"),
        (lambda: kernels.Matern(1.0), ValueError, "nu must be 1/2, 3/2 or 5/2, got 1.0"),
        (lambda: kernels.Matern(1.5, -1.0), ValueError, "lengthscale must be greater than 0"),
        (lambda: kernels.RationalQuadratic(-1.0), ValueError, "alpha must be greater than 0"),
        (lambda: kernels.RationalQuadratic(torch.ones(1)), TypeError, "alpha must be a number"),
        (lambda: kernels.RationalQuadratic((1.0, 2.0), (1.0, 2.0, 3.0)), ValueError, "as many as alpha, 2, got 3"),
        (lambda: kernels.Polynomial(0), ValueError, "degree must be at least 1"),
        (lambda: kernels.Polynomial(33), ValueError, "degree must be at most 32"),
        (lambda: kernels.Polynomial(2.5), TypeError, "degree must be a whole number"),
        (lambda: kernels.Polynomial(3, 0.0), ValueError, "gamma must be greater than 0"),
        (lambda: kernels.Polynomial(3, 1.0, -1.0), ValueError, "coef0 must be at least 0"),
        (lambda: kernels.RBF(torch.ones(2, 2)), ValueError, r"bandwidth must be a tensor of one number"),
        (lambda: kernels.RBF(torch.ones(2, dtype=torch.int64)), TypeError, "bandwidth must be a tensor of float64"),
        (lambda: -1 * kernels.RBF(1.0), ValueError, "a kernel's weight must be at least 0"),
        (lambda: torch.ones(2) * kernels.RBF(1.0), ValueError, "a kernel's weight must be one number"),
        (lambda: torch.tensor(2) * kernels.RBF(1.0), TypeError, "a kernel's weight must be a tensor of float64"),
        (lambda: kernels.Polynomial(32, 1e-12), ValueError, "gamma must have a power"),
        (lambda: kernels.Matern([1.5]), ValueError, "nu must be 1/2, 3/2 or 5/2"),
        (lambda: kernels.RBF(1.0) * kernels.RBF(1.0), TypeError, "not by another kernel"),
    ):
        assert_same_error(make, error, words)
    with pytest.raises(TypeError):
        kernels.RBF(1.0) + 1


CUSTOM = {
    "by autograd": kernels.Custom(lambda s: 1.5 / (1.5 + s)),
    "with derivatives": kernels.Custom(
        lambda s: 1.5 / (1.5 + s), lambda s: -1.5 / (1.5 + s) ** 2, lambda s: 3.0 / (1.5 + s) ** 3
    ),
}


@pytest.mark.parametrize("name", CUSTOM)
def test_kernels_of_the_user(name: str) -> None:
    """One that the operators know too, alone and in a sum with such."""
    x, y, v = (leaf(samples(shape, torch.float64, seed=seed)) for seed, shape in enumerate([(9, 3), (7, 3), (7, 2)]))
    along = [samples(t.shape, torch.float64, seed=20) for t in (x, y)]
    for custom, known in (
        (CUSTOM[name], kernels.InverseMultiquadric(1.5)),
        (2 * CUSTOM[name] + kernels.Linear(), 2 * kernels.InverseMultiquadric(1.5) + kernels.Linear()),
    ):
        for estimator in ("unbiased", "biased"):
            ours, expected = (
                derivatives(lambda x, y, k=k, e=estimator: wk.mmd2(x, y, k, estimator=e), (x, y), along)
                for k in (custom, known)
            )
            for a, b in zip((ours[0], *ours[1], *ours[2]), (expected[0], *expected[1], *expected[2]), strict=True):
                assert_same_by_another_route(a, b)
        assert_same_by_another_route(wk.kernel_matvec(x, y, v, custom), wk.kernel_matvec(x, y, v, known))
        third = lambda x: torch.autograd.grad(wk.mmd2(x, y, custom), x, create_graph=True)[0]  # noqa: B023, E731
        assert gradgradcheck(third, (x,))


def test_a_kernel_of_products_of_the_user_with_learned_numbers() -> None:
    x, y = samples((6, 3), torch.float64), samples((5, 3), torch.float64, seed=1)
    scale = leaf(torch.tensor(0.7, dtype=torch.float64))
    kernel = kernels.Custom(lambda s: (scale * s + 1) ** 3, of="product")
    (ours,) = torch.autograd.grad(wk.mmd2(x, y, kernel), scale)
    gamma = leaf(scale.detach())
    (expected,) = torch.autograd.grad(wk.mmd2(x, y, kernels.Polynomial(3, gamma)), gamma)
    assert_same_by_another_route(ours, expected)


def test_errors_of_kernels_of_the_user() -> None:
    for make, error, words in (
        (lambda: kernels.Custom(1.0), TypeError, "function must be a function of a tensor, got float"),
        (lambda: kernels.Custom(torch.exp, slope=torch.exp), ValueError, "slope and bend must be given together"),
        (lambda: kernels.Custom(torch.exp, of="angle"), ValueError, "of must be one of"),
        (lambda: wk.mmd2(torch.ones(3, 1), torch.ones(3, 1), kernels.Custom(lambda s: s.sum())), ValueError,
         "must return a value for each pair"),
    ):  # fmt: skip
        assert_same_error(make, error, words)


@pytest.mark.parametrize("D", [1000, 4096])
def test_many_features(native: None, D: int) -> None:
    x, y = samples((37, D), torch.float32, seed=1), samples((40, D), torch.float32, seed=2) + 0.1
    for kernel, function in (
        (kernels.RBF(D**0.5), lambda s, p: torch.exp(-s / (2 * D))),
        (kernels.Polynomial(), lambda s, p: (p / D + 1) ** 3),
    ):

        def exact(a: Tensor, b: Tensor) -> Tensor:
            a, b = a.double(), b.double()
            return function((a[:, None] - b[None, :]).square().sum(-1), a @ b.T)  # noqa: B023

        x, y = leaf(x), leaf(y)
        value = wk.mmd2(x, y, kernel, estimator="biased")
        expected = exact(x, x).mean() + exact(y, y).mean() - 2 * exact(x, y).mean()
        assert (
            abs(value.item() - expected.item()) <= 4 * torch.finfo(torch.float32).eps * exact(x, x).abs().max().item()
        )
        for ours, good in zip(*(torch.autograd.grad(v, (x, y)) for v in (value, expected)), strict=True):
            assert_near(ours, good, largest(good), f"gradient, {kernel}, {D}")


def test_many_points(native: None) -> None:
    """Of two places only, so that the sums can be counted."""
    n, m = 20_000, 15_001
    x, y = (torch.arange(count) % 2 for count in (n, m))
    value = wk.mmd2(x[:, None].float(), y[:, None].float(), kernels.Laplacian(1.0), estimator="biased")
    share_x, share_y, near = 0.5, (m // 2) / m, math.exp(-1)
    difference = share_x - share_y  # of the places' weights, opposite in the two places
    assert value.item() == pytest.approx(2 * difference**2 * (1 - near), rel=1e-5)


def test_denormal_points_are_as_good_as_one(backend: str) -> None:
    for dtype in (torch.float64, torch.float32):
        tiny = torch.finfo(dtype).smallest_normal / 16
        x, y = tiny * samples((6, 130), dtype), tiny * samples((5, 130), dtype, seed=1)
        for kernel in FORMULAS:
            points = leaf(x)
            value = wk.mmd2(points, leaf(y), kernel, estimator="biased")
            assert abs(value.item()) <= 16 * torch.finfo(torch.float64).eps, kernel
            assert torch.autograd.grad(value, points)[0].abs().max() <= 4, kernel
            ones = wk.kernel_matvec(x, y, torch.ones(5, dtype=dtype), kernel)
            exact = 5 * formula_matrix(torch.zeros(1, 1), torch.zeros(1, 1), kernel).item()
            assert (ones - exact).abs().max() <= 64 * torch.finfo(dtype).eps * max(abs(exact), 1.0), kernel
