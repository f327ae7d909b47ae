"""bias_leaky_relu: clamp(gain * leaky_relu(x + bias)), and its derivatives by the result."""

import numpy as np
import pytest
from core_arrays import (
    DTYPES,
    QUICK,
    STORAGE,
    SUM_TOLERANCE,
    TOLERANCES,
    WIDE,
    Output,
    assert_same_numbers,
    for_any_threads,
    place,
    to_storage,
    to_values,
)

# negative_slope, gain and clamp; 0.3 is rounded to each dtype.
SETTINGS = [(0.2, 1.0, np.inf), (0.0, 2.0**0.5, 0.3), (1.5, 0.25, 1.0)]
# [B, C, S]: elements of a channel in rows of their own from 64 on, in blocks of 16384; else in rows of 256 at least,
# with sums of 1024 columns and 65536 elements.
SIZES = [(0, 3, 2), (2, 0, 3), (3, 2, 0), (1, 1, 1), (5, 3, 1), (7, 5, 4), (3, 2, 63), (2, 3, 64), (2, 2, 67)]
LARGE = [(1, 2, 16385), (3, 1027, 1), (300, 17, 15), (1, 300, 60), (70, 1030, 1)]
LAYOUTS = [(size, shift) for size in SIZES for shift in (0, 1, 3)]
LAYOUTS += [(size, 0) for size in (LARGE[:2] if QUICK else LARGE)]


def bound_of(clamp, dtype):
    return clamp if np.isinf(clamp) else to_values(to_storage(np.array(clamp), dtype), dtype)[()]


def of_channels(channels):
    return 0 if channels is None else channels[None, :, None]


def forward_oracle(x, bias, settings, dtype):
    """In the computing type, with one rounding per operation, so that the result is known to the last bit."""
    (slope, gain, clamp), wide = settings, WIDE[dtype]
    with np.errstate(all="ignore"):
        z = to_values(x, dtype).astype(wide)
        z = z if bias is None else z + of_channels(bias)
        y = z * np.where(z > 0, wide(gain), wide(gain * slope))
        bound = wide(bound_of(clamp, dtype))
        y = np.where(y < -bound, -bound, np.where(y > bound, bound, y))
    return to_storage(y, dtype)


def scaled_oracle(t, add, y, settings, dtype):
    """(t + add) * dy/dx in the computing type."""
    (slope, gain, clamp), wide = settings, WIDE[dtype]
    y, bound = to_values(y, dtype), bound_of(clamp, dtype)
    with np.errstate(all="ignore"):
        t = to_values(t, dtype).astype(wide)
        t = t if add is None else t + of_channels(add)
        out = t * np.where(y > 0, wide(gain), wide(gain * slope))
    return out if np.isinf(bound) else np.where(np.abs(y) < bound, out, wide(0))


def draw(rng, size, dtype, shift):
    """x, an outer gradient, and numbers for the channels."""
    return [place(rng.normal(size=size), dtype, shift), place(rng.normal(size=size), dtype, 2 * shift),
            rng.normal(size=size[1]).astype(WIDE[dtype])]  # fmt: skip


def check_passes(module, check, rng, size, shift, dtype, settings, has_bias):
    """check(call) -> the arrays that call(run) returns, whatever the threads; shared with the CUDA kernels' tests."""
    x, g, channels = draw(rng, size, dtype, shift)
    add, where = channels if has_bias else None, f"{size}, shift {shift}, {settings}, bias {has_bias}"

    def forward(run):
        y = Output(size, STORAGE[dtype], shift)
        module.bias_leaky_relu(run, dtype, settings, x, add, y.array)
        return (y.written(),)

    (y,) = check(forward)
    assert_same_numbers(y, forward_oracle(x, add, settings, dtype), dtype, where)

    def double_backward(run):
        out = Output(size, STORAGE[dtype], shift)
        module.bias_leaky_relu_double_backward(run, dtype, settings, g, add, y, out.array)
        return (out.written(),)

    (out,) = check(double_backward)
    assert_same_numbers(out, to_storage(scaled_oracle(g, add, y, settings, dtype), dtype), dtype, where)

    def backward(run):
        grad_x, sums = Output(size, STORAGE[dtype], shift), Output(size[1:2], WIDE[dtype], shift)
        module.bias_leaky_relu_backward(run, dtype, settings, g, y, grad_x.array, sums.array if has_bias else None)
        return (grad_x.written(), sums.written() if has_bias else np.empty(0))

    grad_x, sums = check(backward)
    exact = scaled_oracle(g, None, y, settings, dtype)
    assert_same_numbers(grad_x, to_storage(exact, dtype), dtype, where)
    if has_bias:
        exact = exact.astype(np.float64)
        assert_sums(sums, exact.sum((0, 2)), np.abs(exact).sum((0, 2)), WIDE[dtype], where)


def assert_sums(sums, exact, magnitude, wide, where):
    relative = TOLERANCES["float32"][0] / 3 if wide is np.float32 else 0  # of the result: it is rounded once
    allowed = SUM_TOLERANCE * magnitude + relative * np.abs(exact)
    assert (np.abs(sums - exact) <= allowed).all(), where


@pytest.mark.parametrize("has_bias", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass(core, isa, dtype, has_bias):
    rng = np.random.default_rng(60)
    for k, (size, shift) in enumerate(LAYOUTS):
        settings = SETTINGS[k % len(SETTINGS)]
        check_passes(core, lambda call: for_any_threads(core, isa, call), rng, size, shift, dtype, settings, has_bias)


def special_numbers(dtype):
    """x, bias and outer gradients: every pair of special numbers, one bias a channel."""
    special = np.array([0.0, -0.0, 1e-7, -1e-7, 0.3, -0.3, 1.0, -1.0, 3e4, 1e39, np.inf, -np.inf, np.nan])
    x = np.broadcast_to(special[:, None, None], (len(special), 4, len(special)))
    g = np.broadcast_to(special[None, None, :], x.shape)
    return place(x, dtype), place(g, dtype), np.array([0.0, -0.0, 0.5, np.inf], WIDE[dtype])


def check_special_numbers(module, run, dtype):
    x, g, bias = special_numbers(dtype)
    for settings in SETTINGS:
        y, out = Output(x.shape, STORAGE[dtype]), Output(x.shape, STORAGE[dtype])
        module.bias_leaky_relu(run, dtype, settings, x, bias, y.array)
        assert_same_numbers(y.written(), forward_oracle(x, bias, settings, dtype), dtype, f"{settings}")
        module.bias_leaky_relu_double_backward(run, dtype, settings, g, None, y.array, out.array)
        expected = to_storage(scaled_oracle(g, None, y.array, settings, dtype), dtype)
        assert_same_numbers(out.written(), expected, dtype, f"{settings}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_special_numbers(core, isa, dtype):
    check_special_numbers(core, core.Run(isa), dtype)
