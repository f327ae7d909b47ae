"""norm_penalty, its derivative and the derivative of that, against the formulas in float64."""

import numpy as np
import pytest
from core_arrays import (
    DTYPES,
    QUICK,
    STORAGE,
    SUM_TOLERANCE,
    WIDE,
    Output,
    assert_close,
    assert_same_bits,
    for_any_threads,
    place,
    to_values,
)

FEATURES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 32, 33, 64, 65, 129, 16383, 16384, 16385, 32801)
QUICK_FEATURES = (0, 1, 4, 5, 9, 17, 33, 65, 16385)
# target, one_sided, reduction, weight
SETTINGS = [
    (1.0, False, "mean", 10.0),
    (1.0, True, "none", 10.0),
    (1.0, True, "mean", 1.0),
    (0.0, False, "sum", 0.5),
    (0.0, True, "none", 3.0),
    (0.7, False, "none", 2.0),
    (0.7, False, "sum", 2.0),
]


def samples(rng, B, D, dtype, shift=0):
    """Norms on both sides of the targets, and the second sample zero."""
    scales = np.array([0.5, 0.0, 2.0, 1.3])[np.arange(B) % 4] / np.sqrt(max(D, 1))
    return place(scales[:, None] * rng.normal(size=(B, D)), dtype, shift)


class Oracle:
    """The penalty of grad, [B, D] in storage, and its derivatives, with the magnitudes that errors are relative to."""

    def __init__(self, grad, dtype, setting):
        self.target, self.one_sided, self.reduction, weight = setting
        self.x, self.B = to_values(grad, dtype), len(grad)
        self.norms = np.sqrt((self.x * self.x).sum(1))
        excess = self.norms - self.target
        self.excess = np.maximum(excess, 0) if self.one_sided else excess
        self.factor = weight / max(self.B, 1) if self.reduction == "mean" else weight
        self.safe = np.where(self.norms == 0, 1, self.norms)
        # The gradient of a sample's penalty is first * x.
        self.first = (
            np.full(self.B, 2.0) if self.target == 0 else np.where(self.norms == 0, 0, 2 * self.excess / self.safe)
        )

    def reduce(self, per_sample):
        per_sample = self.factor * per_sample
        return per_sample if self.reduction == "none" else per_sample.sum(keepdims=True)

    def value(self):
        return self.reduce(self.excess**2), self.reduce((self.norms + self.target) ** 2)

    def gradient(self, grad_value):
        expected = (grad_value * self.factor * self.first)[:, None] * self.x
        return expected, np.abs(expected)

    def double_backward(self, u, grad_value):
        """grad_grad_value and grad_x for the gradient u of the gradient; each with its magnitude."""
        dots, magnitudes = (u * self.x).sum(1), np.abs(u * self.x).sum(1)
        grad_grad_value = self.reduce(self.first * dots), self.reduce(np.abs(self.first) * magnitudes)
        # first(n)' = 2 * target / n^2 away from 0 and, if one-sided, above the target.
        curved = (self.norms > 0) & (~np.array(self.one_sided) | (self.norms > self.target))
        along = np.where(curved, 2 * self.target * (dots / self.safe) / self.safe / self.safe, 0)
        scale = (grad_value * self.factor)[:, None]
        terms = scale * self.first[:, None] * u, scale * along[:, None] * self.x
        return grad_grad_value, (sum(terms), sum(map(np.abs, terms)))


def forward(core, run, dtype, penalty, grad, values):
    value, norms = Output(values, WIDE[dtype]), Output(len(grad), np.float64)
    core.norm_penalty(run, dtype, penalty, grad, value.array, norms.array)
    return value.written(), norms.written()


def with_grad(core, run, dtype, penalty, grad, values, shift=0):
    value, norms = Output(values, WIDE[dtype]), Output(len(grad), np.float64)
    grad_x = Output(grad.shape, STORAGE[dtype], shift)
    core.norm_penalty_with_grad(run, dtype, penalty, grad, value.array, norms.array, grad_x.array)
    return value.written(), norms.written(), grad_x.written()


def backward(core, run, dtype, penalty, grad_value, grad, norms, shift=0):
    grad_x = Output(grad.shape, STORAGE[dtype], shift)
    core.norm_penalty_backward(run, dtype, penalty, grad_value, grad, norms, grad_x.array)
    return (grad_x.written(),)


def double_backward(core, run, dtype, penalty, u, grad_value, grad, norms, shift=0):
    grad_grad_value, grad_x = Output(grad_value.shape, WIDE[dtype]), Output(grad.shape, STORAGE[dtype], shift)
    core.norm_penalty_double_backward(
        run, dtype, penalty, u, grad_value, grad, norms, grad_grad_value.array, grad_x.array
    )
    return grad_grad_value.written(), grad_x.written()


def assert_sums_close(actual, expected, magnitude, message):
    """Numbers that were summed in float64 and rounded once to their dtype."""
    info = np.finfo(actual.dtype)
    rounding = info.eps * np.abs(expected) + info.smallest_subnormal
    error = np.abs(actual - expected)
    assert (error <= rounding + SUM_TOLERANCE * magnitude).all(), f"{message}: off by {error.max()}"


def cases(rng, dtype, shifts=(0, 1)):
    for D in QUICK_FEATURES if QUICK else FEATURES:
        for index, setting in enumerate(SETTINGS):
            long = D > 200
            B = (6, 3, 1)[index % 3] if long else (index * 5 + D) % 7
            if long and index % 2 != D % 2:
                continue
            for shift in shifts[D // 2 % 2 :][:1] if long else shifts:
                message = f"B {B}, D {D}, {setting}, shift {shift}"
                yield samples(rng, B, D, dtype, shift), setting, shift, message


def numbers_per_value(rng, B, reduction, dtype):
    return rng.normal(size=B if reduction == "none" else 1).astype(WIDE[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_forward(core, isa, dtype):
    for grad, setting, _, message in cases(np.random.default_rng(8), dtype):
        oracle, penalty, B = Oracle(grad, dtype, setting), core.NormPenalty(*setting), len(grad)
        values = B if setting[2] == "none" else 1
        value, norms = for_any_threads(core, isa, lambda run: forward(core, run, dtype, penalty, grad, values))  # noqa: B023
        np.testing.assert_allclose(norms, oracle.norms, rtol=SUM_TOLERANCE, err_msg=message)
        if B == 0 and setting[2] == "mean":
            assert np.isnan(value).all(), message  # as torch.mean has it
        else:
            assert_sums_close(value, *oracle.value(), message)


@pytest.mark.parametrize("dtype", DTYPES)
def test_backward(core, isa, dtype):
    rng = np.random.default_rng(9)
    for grad, setting, shift, message in cases(rng, dtype):
        oracle, penalty = Oracle(grad, dtype, setting), core.NormPenalty(*setting)
        grad_value = numbers_per_value(rng, len(grad), setting[2], dtype)
        arguments = dtype, penalty, grad_value, grad, oracle.norms, shift
        (grad_x,) = for_any_threads(core, isa, lambda run: backward(core, run, *arguments))  # noqa: B023
        assert_close(grad_x, *oracle.gradient(grad_value.astype(np.float64)), dtype, message)
        assert_same_bits(grad_x, backward(core, core.Run("plain"), *arguments)[0], f"unlike plain: {message}")


def assert_one_sweep_is_both(core, isa, dtype, grad, setting, shift, message):
    penalty, values = core.NormPenalty(*setting), len(grad) if setting[2] == "none" else 1
    sweep = for_any_threads(core, isa, lambda run: with_grad(core, run, dtype, penalty, grad, values, shift))
    value, norms = forward(core, core.Run(isa), dtype, penalty, grad, values)
    (grad_x,) = backward(core, core.Run(isa), dtype, penalty, np.ones(values, WIDE[dtype]), grad, norms, shift)
    for actual, expected in zip(sweep, (value, norms, grad_x), strict=True):
        assert_same_bits(actual, expected, message)


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_and_gradient_in_one_sweep(core, isa, dtype):
    for grad, setting, shift, message in cases(np.random.default_rng(14), dtype):
        assert_one_sweep_is_both(core, isa, dtype, grad, setting, shift, message)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_one_sweep_larger_than_the_caches(core, isa, dtype):
    """With rows of a whole number of turns, and one element fewer."""
    for D in (4096, 4096 - 1):
        B = (4 << 20) // (D * np.dtype(STORAGE[dtype]).itemsize) + 1
        grad = samples(np.random.default_rng(15), B, D, dtype)
        assert_one_sweep_is_both(core, isa, dtype, grad, (1.0, False, "mean", 10.0), 0, f"D {D}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_double_backward(core, isa, dtype):
    rng = np.random.default_rng(10)
    for grad, setting, shift, message in cases(rng, dtype):
        oracle, penalty = Oracle(grad, dtype, setting), core.NormPenalty(*setting)
        grad_value = numbers_per_value(rng, len(grad), setting[2], dtype)
        # Not at right angles to grad: what lies along grad is then a visible part of the result.
        u = place(3 * oracle.x + 0.5 * rng.normal(size=grad.shape) / np.sqrt(max(grad.shape[1], 1)), dtype, shift)
        arguments = dtype, penalty, u, grad_value, grad, oracle.norms, shift
        grad_grad_value, grad_x = for_any_threads(
            core,
            isa,
            lambda run: double_backward(core, run, *arguments),  # noqa: B023
        )
        expected, expected_x = oracle.double_backward(to_values(u, dtype), grad_value.astype(np.float64))
        assert_sums_close(grad_grad_value, *expected, message)
        assert_close(grad_x, *expected_x, dtype, message)


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_results_larger_than_the_caches(core, isa, dtype):
    """Written past the caches where the memory is aligned: the same numbers as where it is not."""
    rng = np.random.default_rng(11)
    D = 32768 + 32
    B = (4 << 20) // (D * np.dtype(STORAGE[dtype]).itemsize) + 1
    setting = (1.0, False, "sum", 10.0)
    grad, penalty = samples(rng, B, D, dtype), core.NormPenalty(*setting)
    oracle, grad_value = Oracle(grad, dtype, setting), np.ones(1, WIDE[dtype])
    u = place(3 * oracle.x + rng.normal(size=grad.shape) / np.sqrt(D), dtype)
    results = {}
    for shift in (0, 1):
        results[shift] = for_any_threads(
            core,
            isa,
            lambda run, at=shift: (
                *backward(core, run, dtype, penalty, grad_value, grad, oracle.norms, at),
                *double_backward(core, run, dtype, penalty, u, grad_value, grad, oracle.norms, at),
            ),
        )
    for aligned, shifted in zip(results[0], results[1]):
        assert_same_bits(shifted, aligned, "written past the caches")
    assert_close(results[0][0], *oracle.gradient(np.ones(1)), dtype)
    assert_close(results[0][2], *oracle.double_backward(to_values(u, dtype), np.ones(1))[1], dtype)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_alone_is_the_sample_in_a_batch(core, isa, dtype):
    """A sample's sum does not depend on where in the batch it is, nor on where in memory."""
    rng = np.random.default_rng(12)
    for D in (5, 67, 16384 + 77):
        grad = samples(rng, 5, D, dtype)
        penalty = core.NormPenalty(1.0, False, "none", 10.0)
        _, norms = forward(core, core.Run(isa), dtype, penalty, grad, 5)
        for row in range(5):
            alone = place(to_values(grad[row : row + 1], dtype), dtype, shift=row)
            assert_same_bits(forward(core, core.Run(isa), dtype, penalty, alone, 1)[1], norms[row : row + 1])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_sample(core, isa, dtype):
    x = np.full((4, 37), 0.25)
    x[1, 36], x[2, 3], x[3, 0] = np.nan, np.inf, -np.inf
    grad = place(x, dtype)
    for setting in SETTINGS:
        penalty = core.NormPenalty(setting[0], setting[1], "none", setting[3])
        value, norms = forward(core, core.Run(isa), dtype, penalty, grad, 4)
        np.testing.assert_array_equal(norms, [np.sqrt(37) / 4, np.nan, np.inf, np.inf])
        np.testing.assert_array_equal(np.isnan(value), [False, True, False, False])
        np.testing.assert_array_equal(value[2:], np.inf)
        (grad_x,) = backward(core, core.Run(isa), dtype, penalty, np.ones(4, WIDE[dtype]), grad, norms)
        assert np.isfinite(to_values(grad_x[0], dtype)).all()
        assert np.isnan(to_values(grad_x[1, 36], dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("norm", [1e-15, 1e-22, 1e-30, 1e-37, 1e-39, 1e-40])
def test_tiny_gradients(core, isa, dtype, norm):
    """The scales 1/n and 1/n^2 leave float32's range long before the derivatives do."""
    rng = np.random.default_rng(13)
    for B, D in ((1, 3), (3, 41), (2, 16384 + 9)):
        x = rng.normal(size=(B, D)) * (norm / np.sqrt(D))
        x[:, 1] = 0  # infinity times 0 would be NaN
        setting = (1.0, False, "sum", 1.0)
        grad, penalty = place(x, dtype), core.NormPenalty(*setting)
        oracle, grad_value = Oracle(grad, dtype, setting), np.ones(1, WIDE[dtype])
        if (oracle.norms == 0).any():
            continue
        unit = oracle.norms[:, None] if norm > 1e-36 else 1  # the results for a unit u overflow below
        u = place(3 * oracle.x / unit, dtype)
        (grad_x,) = for_any_threads(
            core,
            isa,
            lambda run: backward(core, run, dtype, penalty, grad_value, grad, oracle.norms),  # noqa: B023
        )
        assert_close(grad_x, *oracle.gradient(np.ones(1)), dtype, f"backward, D {D}")
        grad_grad_value, grad_x = for_any_threads(
            core,
            isa,
            lambda run: double_backward(core, run, dtype, penalty, u, grad_value, grad, oracle.norms),  # noqa: B023
        )
        expected, expected_x = oracle.double_backward(to_values(u, dtype), np.ones(1))
        assert_sums_close(grad_grad_value, *expected, f"D {D}")
        assert_close(grad_x, *expected_x, dtype, f"double backward, D {D}")
