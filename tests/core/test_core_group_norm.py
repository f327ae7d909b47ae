"""group_norm, its derivative and the derivative of that, against the formulas in float64."""

import itertools

import numpy as np
import pytest
from core_arrays import (
    DTYPES,
    NORM_ROUNDINGS,
    QUICK,
    STORAGE,
    WIDE,
    Output,
    assert_close,
    for_any_threads,
    place,
    to_storage,
    to_values,
)

EPS = 1e-5
# B, C, S, groups. Parameters are copied to each of fewer than 256 positions; sums are widened after 16 vectors; moments
# begin anew after 4096 elements; chunks are of 4 to 16 samples.
SIZES = [
    (0, 4, 3, 2),
    (1, 5, 1, 1),
    (3, 7, 1, 1),
    (7, 16, 1, 1),
    (70, 33, 1, 1),
    (2, 4099, 1, 1),
    (5, 12, 1, 3),
    (3, 6, 4, 6),
    (4, 6, 9, 2),
    (2, 4, 255, 2),
    (3, 4, 256, 2),
    (2, 3, 259, 1),
    (1, 2, 8200, 2),
    (21, 2, 17, 1),
]
QUICK_SIZES = [(3, 7, 1, 1), (18, 33, 1, 1), (4, 6, 9, 2), (2, 4, 258, 2)]


class Oracle:
    """Everything of arrays [B, C, S], float64, with the magnitudes that errors are relative to."""

    def __init__(self, x, groups, weight, bias):
        self.x, self.groups = x, groups
        self.w = 1.0 if weight is None else weight[:, None]
        self.b = 0.0 if bias is None else bias[:, None]
        self.mean, variance = self.each(x).mean(2), self.each(x).var(2)
        self.rstd = 1 / np.sqrt(variance + EPS)

    def each(self, t):
        """By groups, [B, groups, n]."""
        B, C, S = self.x.shape
        return np.broadcast_to(t, self.x.shape).reshape(B, self.groups, C // self.groups * S)

    def average(self, t):
        return np.repeat(self.each(t).mean(2), self.x.shape[1] // self.groups, 1)[:, :, None]

    def known(self, rstd):
        """What the derivatives are taken at: the rstd that they are given."""
        channels = self.x.shape[1] // self.groups
        self.r = np.repeat(rstd.astype(np.float64), channels, 1)[:, :, None]
        self.xhat = (self.x - self.average(self.x)) * self.r

    def s(self, t):
        return self.r * (t - self.average(t) - self.xhat * self.average(t * self.xhat))

    def s_size(self, t):
        t, xhat = np.abs(t), np.abs(self.xhat)
        return self.r * (t + self.average(t) + xhat * self.average(t * xhat))

    def value(self):
        self.known(self.rstd)
        largest = np.repeat(np.abs(self.each(self.xhat)).max(2), self.x.shape[1] // self.groups, 1)[:, :, None]
        return self.w * self.xhat + self.b, np.abs(self.w) * largest + np.abs(self.b)

    def backward(self, g):
        # That the mean of xhat is zero comes of sums over the group, however small xhat is.
        size = np.abs(g) * (np.abs(self.xhat) + self.average(np.abs(self.xhat)))
        sums = [(t.sum((0, 2)), of.sum((0, 2))) for t, of in ((g * self.xhat, size), (g, np.abs(g)))]
        return (self.s(self.w * g), self.s_size(self.w * g)), *sums

    def double_backward(self, u, p, q, g):
        p, q = (np.zeros((1, 1)) if t is None else t[:, None] for t in (p, q))
        a, xhat, m = self.w * g, self.xhat, self.average
        grad_x = self.s(p * g) - self.r * (xhat * m(a * self.s(u)) + m(u * xhat) * self.s(a) + m(a * xhat) * self.s(u))
        sizes = [np.abs(t) for t in (a, u, xhat)]
        a_size, u_size, x_size = sizes
        size = self.s_size(p * g) + self.r * (
            x_size * m(a_size * self.s_size(u))
            + m(u_size * x_size) * self.s_size(a)
            + m(a_size * x_size) * self.s_size(u)
        )
        by_y = self.w * self.s(u) + p * xhat + q
        by_y_size = np.abs(self.w) * self.s_size(u) + np.abs(p * xhat) + np.abs(q)
        by_weight = (g * self.s(u)).sum((0, 2)), (np.abs(g) * self.s_size(u)).sum((0, 2))
        return (by_y, by_y_size), (grad_x, size), by_weight


class Problem:
    """Arrays in storage, [B, C, S] or [B, S, C], and the calls of a module."""

    def __init__(self, rng, dtype, size, channels_last=False, affine=True, along=True, shift=0, centre=0.0):
        self.dtype, self.shift, self.channels_last, self.affine = dtype, shift, channels_last, affine
        B, C, S, self.groups = size
        self.C = C
        self.values = [to_values(to_storage(rng.normal(size=(B, C, S)), dtype), dtype) for _ in range(3)]
        self.values[0] = to_values(to_storage(self.values[0] + centre, dtype), dtype)
        self.x, self.g, self.u = (place(self.arranged(t), dtype, shift * k) for k, t in enumerate(self.values, 1))
        self.params = [rng.normal(size=C).astype(WIDE[dtype]) for _ in range(4)]
        none = np.empty(0, WIDE[dtype])
        self.weight, self.bias = self.params[:2] if affine else (none, none)
        self.p, self.q = self.params[2:] if affine and along else (none, none)
        given = [None if len(t) == 0 else t.astype(np.float64) for t in (self.weight, self.bias, self.p, self.q)]
        self.oracle, self.along = Oracle(self.values[0], self.groups, *given[:2]), given[2:]
        self.mean, self.rstd = (t.astype(WIDE[dtype]) for t in (self.oracle.mean, self.oracle.rstd))

    def arranged(self, t):
        return np.ascontiguousarray(t.transpose(0, 2, 1)) if self.channels_last else t

    def output(self):
        return Output(self.x.shape, STORAGE[self.dtype], self.shift)

    def param_output(self):
        return Output(self.C if self.affine else 0, WIDE[self.dtype])

    def how(self):
        return self.dtype, self.groups, self.channels_last

    def forward(self, module, run):
        outs = [self.output(), *[Output(self.mean.shape, WIDE[self.dtype]) for _ in range(2)]]
        module.group_norm(run, *self.how(), EPS, self.x, self.weight, self.bias, *[out.array for out in outs])
        return tuple(out.written() for out in outs)

    def backward(self, module, run, wanted=True):
        outs = [self.output(), *[self.param_output() if wanted else Output(0, WIDE[self.dtype]) for _ in range(2)]]
        given = self.g, self.x, self.weight, self.mean, self.rstd
        module.group_norm_backward(run, *self.how(), *given, *[out.array for out in outs])
        return tuple(out.written() for out in outs)

    def double_backward(self, module, run, wanted=True):
        outs = [self.output(), self.output(), self.param_output()]
        if not wanted:
            outs[::2] = Output(0, STORAGE[self.dtype]), Output(0, WIDE[self.dtype])
        given = self.u, self.p, self.q, self.g, self.x, self.weight, self.mean, self.rstd
        module.group_norm_double_backward(run, *self.how(), *given, *[out.array for out in outs])
        return tuple(out.written() for out in outs)

    def assert_right(self, results, expected, message):
        for k, (actual, (value, size)) in enumerate(zip(results, expected)):
            if actual.size == 0:
                continue
            is_samples = actual.ndim == 3
            value, size = (self.arranged(t) if is_samples else t for t in np.broadcast_arrays(value, size))
            dtype = self.dtype if is_samples or self.dtype == "float64" else "float32"
            assert_close(actual, value, size * NORM_ROUNDINGS[dtype], dtype, f"{message}, result {k}")

    def check(self, call, message):
        """call(function) gives what function(run) returns, after checks of its own."""
        y, mean, rstd = call(lambda run: self.forward(*run))
        known = [(self.oracle.mean, np.abs(self.values[0]).max(initial=0)), (self.oracle.rstd, self.oracle.rstd)]
        self.assert_right((y,), [self.oracle.value()], message)
        for actual, (value, size) in zip((mean, rstd), known):
            wide = "float64" if self.dtype == "float64" else "float32"
            assert_close(actual, value, size * NORM_ROUNDINGS[wide], wide, message)
        self.oracle.known(self.rstd)
        for wanted in (True, False):
            results = call(lambda run, w=wanted: self.backward(*run, w))
            self.assert_right(results, self.oracle.backward(self.values[1]), f"{message}, backward")
            results = call(lambda run, w=wanted: self.double_backward(*run, w))
            expected = self.oracle.double_backward(self.values[2], *self.along, self.values[1])
            self.assert_right(results, expected, f"{message}, double backward")


def settings():
    """channels_last, affine, along."""
    return [*itertools.product((False, True), [(True, True), (True, False), (False, False)])]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass(core, isa, dtype):
    rng = np.random.default_rng(50)
    for size in QUICK_SIZES if QUICK else SIZES:
        for k, (channels_last, (affine, along)) in enumerate(settings()):
            problem = Problem(rng, dtype, size, channels_last, affine, along, shift=k % 2)
            call = lambda f: for_any_threads(core, isa, lambda run: f((core, run)))  # noqa: E731
            problem.check(call, f"{size}, {channels_last}, {affine}, {along}")


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_larger_than_the_caches(core, isa, dtype, channels_last):
    """So that results are written past the caches."""
    rng = np.random.default_rng(51)
    size = (3, 4, 4, 2) if QUICK else (66, 32, 255 if dtype == "float64" else 512, 4)
    problem = Problem(rng, dtype, size, channels_last)
    problem.check(lambda f: for_any_threads(core, isa, lambda run: f((core, run))), "large")


@pytest.mark.parametrize("channels_last", [False, True])
def test_far_from_zero(core, isa, channels_last):
    """Numbers of mean 1000 and deviation 1: the rounded mean is off by some 1e-5 deviations, which may not show."""
    rng = np.random.default_rng(52)
    for size in [(3, 700, 1, 1), (2, 6, 300, 3)]:
        problem = Problem(rng, "float32", size, channels_last, centre=1000.0)
        problem.check(lambda f: f((core, core.Run(isa))), f"{size}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_group(core, isa, dtype):
    rng = np.random.default_rng(53)
    for channels_last, bad in itertools.product((False, True), (np.nan, np.inf)):
        problem = Problem(rng, dtype, (3, 4, 37, 2), channels_last)
        values = problem.values[0].copy()
        values[1, 2, 36] = bad
        problem.x = place(problem.arranged(values), dtype)
        y, _, rstd = problem.forward(core, core.Run(isa))
        y = to_values(y, dtype)
        y = y.transpose(0, 2, 1) if channels_last else y
        expected = np.zeros((3, 4), bool)
        expected[1, 2:] = True
        np.testing.assert_array_equal(np.isnan(y).all(2), expected)
        np.testing.assert_array_equal(np.isnan(y).any(2), expected)
        np.testing.assert_array_equal(np.isnan(rstd), expected[:, ::2])


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # of numpy: its means are of no numbers
def test_images_without_pixels_give_gradients_of_zero(core, isa):
    problem = Problem(np.random.default_rng(54), "float32", (3, 4, 0, 2))
    run = core, core.Run(isa)
    _, *by_params = problem.backward(*run)
    *_, by_weight = problem.double_backward(*run)
    np.testing.assert_array_equal([*by_params, by_weight], np.zeros((3, 4)))
