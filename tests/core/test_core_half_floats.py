"""Loads and stores of bfloat16 and float16, every bit pattern of them, seen through the operators."""

import numpy as np
import pytest
from core_arrays import (
    HALVES,
    Output,
    assert_same_bits,
    assert_same_numbers,
    half_magnitudes,
    half_values,
    to_storage,
    to_values,
)

EVERY_PATTERN = np.arange(1 << 16, dtype=np.uint16)


def scale(core, isa, dtype, x, scales):
    """x, [B, D] in storage, times scales, [B] float32: the derivative of |x|^2 / 2 per row."""
    penalty = core.NormPenalty(0.0, False, "none", 0.5)
    out = Output(x.shape, np.uint16)
    norms = np.ones(len(x))
    core.norm_penalty_backward(core.Run(isa), dtype, penalty, scales.astype(np.float32), x, norms, out.array)
    return out.written()


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern_loads(core, isa, dtype):
    # Rows of one element: the norm, in float64, is the element's magnitude.
    value, norms = np.empty(1 << 16, np.float32), np.empty(1 << 16)
    penalty = core.NormPenalty(0.0, False, "none", 1.0)
    core.norm_penalty(core.Run(isa), dtype, penalty, EVERY_PATTERN[:, None], value, norms)
    np.testing.assert_array_equal(norms, np.abs(half_values(dtype)))


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern_loads_in_full_vectors_of_doubles(core, isa, dtype):
    # 64 of a pattern in each row: no tail.
    x = np.repeat(EVERY_PATTERN[:, None], 64, axis=1)
    value, norms = np.empty(1 << 16, np.float32), np.empty(1 << 16)
    core.norm_penalty(core.Run(isa), dtype, core.NormPenalty(0.0, False, "none", 1.0), x, value, norms)
    with np.errstate(invalid="ignore"):
        expected = 8 * np.abs(half_values(dtype))
    np.testing.assert_array_equal(norms, expected)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern_survives_a_round_trip(core, isa, dtype):
    for columns in (1 << 16, 1):
        out = scale(core, isa, dtype, EVERY_PATTERN.reshape(-1, columns), np.ones((1 << 16) // columns))
        assert_same_numbers(out.ravel(), EVERY_PATTERN, dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern_times_a_number(core, isa, dtype):
    # A wrong load cannot hide behind the store that undoes it.
    factors = np.random.default_rng(0).uniform(-4, 4, 16).astype(np.float32)
    factors[0] = 0.1
    out = scale(core, isa, dtype, np.tile(EVERY_PATTERN, (16, 1)), factors)
    with np.errstate(over="ignore", invalid="ignore"):
        product = factors[:, None] * half_values(dtype).astype(np.float32)
    assert_same_numbers(out, to_storage(product, dtype), dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_stores_round_to_nearest_even(core, isa, dtype):
    """Random float32 numbers of every size, every halfway case, and its neighbours."""
    random = np.random.default_rng(1).integers(0, 1 << 32, 200_000, dtype=np.uint32).view(np.float32)
    table = half_magnitudes(dtype)
    halfway = ((table[1:] + table[:-1]) / 2).astype(np.float32)
    assert (halfway == (table[1:] + table[:-1]) / 2).all()
    cases = np.concatenate(
        [random, halfway, np.nextafter(halfway, np.float32(0)), np.nextafter(halfway, np.float32(np.inf))]
        + [np.float32([0, np.inf, np.nan, 3.4e38, 1e-45, 65504, 65519.996, 65520, 6e-8, 2.98e-8])]
    ).astype(np.float32)
    cases = np.concatenate([cases, -cases])
    one = to_storage(np.ones((len(cases), 1)), dtype)
    out = scale(core, isa, dtype, one, cases)[:, 0]
    assert_same_numbers(out, to_storage(cases, dtype), dtype)


@pytest.mark.parametrize("dtype", HALVES)
def test_vector_stores_round_to_nearest_even(core, isa, dtype):
    """The middle of each two neighbours, computed across a long row: ties go to the even one."""
    values = half_values(dtype)
    infinity = len(half_magnitudes(dtype)) - 1
    lower = EVERY_PATTERN[: infinity - 1]
    for sign in (0, 0x8000):
        real, fake = (lower | sign)[None].astype(np.uint16), ((lower + 1) | sign)[None].astype(np.uint16)
        out = Output(real.shape, np.uint16)
        core.interpolate(core.Run(isa), dtype, real, fake, np.float32([0.5]), out.array)
        even = np.where(lower % 2 == 0, real, fake)
        assert_same_bits(out.written() | sign, even.astype(np.uint16))
        assert (np.abs(to_values(out.array, dtype)) <= values[infinity - 1]).all()
