"""What the tests of the core share: number formats in numpy alone, arrays that notice a stray write, thread counts."""

from __future__ import annotations

import os
from functools import lru_cache

import numpy as np
import pytest

# Set under sanitizers, which run 5 to 20 times slower: every kernel and pass, on fewer sizes.
QUICK = os.environ.get("WGK_QUICK") == "1"

SANITIZER = os.environ.get("WGK_SANITIZER", "")
DTYPES = ("float64", "float32", "bfloat16", "float16")
# Of CUDA kernels. Under ThreadSanitizer, where a launch is slow, half floats have the tests that are theirs alone:
# other kernels widen them.
SIMT_DTYPES = DTYPES[:2] if SANITIZER == "thread" else DTYPES
many_threads = pytest.mark.skipif(SANITIZER == "thread", reason="more CUDA threads than ThreadSanitizer has room for")
HALVES = ("bfloat16", "float16")
STORAGE = {"float64": np.float64, "float32": np.float32, "bfloat16": np.uint16, "float16": np.uint16}
# The dtype of per-sample numbers, and the one that elements are computed in.
WIDE = {"float64": np.float64, "float32": np.float32, "bfloat16": np.float32, "float16": np.float32}

# How far an element of a result may be from the exact one: relative to the sum of the magnitudes of its terms (a
# rounded factor, a product, a sum, and the rounding to the dtype), and the spacing of the subnormals.
# A float64 oracle is itself inexact, so float64 gets room for the sums over a row.
TOLERANCES = {
    "float64": (1e-14, 5e-324),
    "float32": (3.01 * 2**-24, 2.0**-149),
    "bfloat16": (1.001 * 2**-8, 2.0**-133),
    "float16": (1.001 * 2**-11, 2.0**-24),
}
# How many times that of an element of group_norm, which is a chain of some ten roundings in the computing type; sums by
# channel begin in it, too. Rounding to a half-width float is coarser than all of them.
NORM_ROUNDINGS = {"float64": 64, "float32": 8, "bfloat16": 1.01, "float16": 1.01}
# Sums over a row are kept in float64 for every dtype: relative to the sum of the magnitudes.
SUM_TOLERANCE = 1e-14

POISON = 0xFF  # a byte; repeated, a NaN in each of the dtypes
GUARD = 0xA5  # another: what is computed from a NaN could be the very poison


# ---- formats


@lru_cache
def half_values(dtype: str) -> np.ndarray:
    """The values of all 65536 bit patterns, as float64, by the definition of the format."""
    bits = np.arange(1 << 16, dtype=np.uint16)
    with np.errstate(invalid="ignore"):
        if dtype == "bfloat16":
            return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
        return bits.view(np.float16).astype(np.float64)


@lru_cache
def half_magnitudes(dtype: str) -> np.ndarray:
    """The finite values from 0 up and the power of two that follows: an index is a bit pattern, the last infinity's."""
    infinity = {"bfloat16": 0x7F80, "float16": 0x7C00}[dtype]
    return np.append(half_values(dtype)[:infinity], {"bfloat16": 2.0**128, "float16": 2.0**16}[dtype])


def to_storage(values, dtype: str) -> np.ndarray:
    """Values as the dtype stores them, rounded to the nearest, ties to even: found by search, not by bit tricks."""
    with np.errstate(invalid="ignore"):  # signalling NaNs
        values = np.asarray(values, dtype=np.float64)
    if dtype not in HALVES:
        with np.errstate(over="ignore", invalid="ignore"):
            return values.astype(STORAGE[dtype])
    table = half_magnitudes(dtype)
    magnitude = np.abs(values)
    below = np.clip(np.searchsorted(table, magnitude, side="right") - 1, 0, len(table) - 2)
    middle = (table[below] + table[below + 1]) / 2
    up = (magnitude > middle) | ((magnitude == middle) & (below % 2 == 1))
    bits = np.where(np.isnan(values), len(table) - 1 | 0x40 | 0x200 * (dtype == "float16"), below + up)
    return (bits | np.signbit(values) * 0x8000).astype(np.uint16)


def to_values(stored: np.ndarray, dtype: str) -> np.ndarray:
    return half_values(dtype)[stored] if dtype in HALVES else stored.astype(np.float64)


# ---- arrays


def place(values, dtype: str, shift: int = 0) -> np.ndarray:
    """Values in storage, `shift` elements into memory that ends with them: a sanitizer sees a read past the end."""
    values = np.asarray(values)
    memory = np.empty(shift + values.size, STORAGE[dtype])
    memory[shift:] = to_storage(values, dtype).ravel()
    return memory[shift:].reshape(values.shape)


class Output:
    """A poisoned array between poisoned guards, `shift` elements past a multiple of 64 bytes."""

    def __init__(self, shape, storage, shift: int = 0):
        guard, count, size = 256, int(np.prod(shape)), np.dtype(storage).itemsize
        self.memory = np.full(2 * guard + 64 + (count + shift) * size, POISON, np.uint8)
        begin = guard + -(self.memory.ctypes.data + guard) % 64 + shift * size
        self.before, self.after = self.memory[:begin], self.memory[begin + count * size :]
        self.before[:], self.after[:] = GUARD, GUARD
        self.array = self.memory[begin : begin + count * size].view(storage).reshape(shape)

    def written(self) -> np.ndarray:
        """The array, once nothing around it has changed."""
        assert (self.before == GUARD).all(), "written before the first element"
        assert (self.after == GUARD).all(), "written past the last element"
        return self.array


def bits(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).view(f"u{array.itemsize}")


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, message: str = "") -> None:
    np.testing.assert_array_equal(bits(actual), bits(expected), err_msg=message)


def assert_same_numbers(actual: np.ndarray, expected: np.ndarray, dtype: str, message: str = "") -> None:
    """The same bits, but any NaN will do for a NaN."""
    nan = np.isnan(to_values(expected, dtype))
    np.testing.assert_array_equal(np.isnan(to_values(actual, dtype)), nan, err_msg=message)
    assert_same_bits(np.where(nan, 0, actual), np.where(nan, 0, expected), message)


def assert_close(actual: np.ndarray, expected, magnitude, dtype: str, message: str = "") -> None:
    """Elements in storage against exact ones; magnitude is the sum of the magnitudes of their terms."""
    relative, floor = TOLERANCES[dtype]
    error = np.abs(to_values(actual, dtype) - expected)
    worst = error - (relative * np.asarray(magnitude) + floor)
    where = np.argmax(np.nan_to_num(worst, nan=np.inf)) if worst.size else 0
    assert (worst <= 0).all(), f"{message}: {dtype} off by {error.flat[where]} at element {where}"


# ---- threads of the CPU, and of CUDA


def runs(core, isa: str) -> list:
    """One thread; two as a caller's pool would split; three and seven in ranges as fine as can be."""
    fine = [core.Run(isa, threads, finely=True) for threads in ((7,) if QUICK else (3, 7))]
    return [core.Run(isa, 1), core.Run(isa, 2), *fine]


def for_any_threads(core, isa: str, call):
    """What call(run) returns, a tuple of arrays, after checking that it has the same bits for any number of threads."""
    first, *others = [call(run) for run in runs(core, isa)]
    for other in others:
        for expected, actual in zip(first, other):
            assert_same_bits(actual, expected, "another number of threads")
    return first


def for_any_order(simt, call):
    """What call(run) returns, a tuple of arrays: the same bits with threads and blocks from the last to the first."""
    first, last = call(simt.Run()), call(simt.Run(reverse=True))
    for expected, actual in zip(first, last):
        assert_same_bits(actual, expected, "another order of threads")
    return first
