"""clip_weights: min(max(w, low), high) in place, to the last bit, and nothing else in memory touched."""

import numpy as np
import pytest
from core_arrays import DTYPES, HALVES, QUICK, STORAGE, assert_same_bits, half_values, runs, to_storage, to_values

BOUNDS = [
    (-0.01, 0.01),
    (0.1, 0.1),
    (0.0, 1.0),
    (-1.0, -0.0),
    (-np.inf, 0.3),
    (-1e39, 1e39),
    (-np.inf, np.inf),
    (-6e-8, 1e-40),
    (1.5, 2.5),
]
SPECIAL = [0.0, -0.0, np.nan, -np.nan, np.inf, -np.inf, 0.01, -0.01, 0.1, 1.0, 1e-7, -1e-7, 1e-41, -1e-41, 7e4, -3e38]

# Views that leave gaps, in memory of their own: (elements of memory, view of them).
LAYOUTS = {
    "dense": (1000, lambda m: m),
    "dense, offset": (1003, lambda m: m[3:]),
    "scalar": (5, lambda m: m[2:3].reshape(())),
    "empty": (7, lambda m: m[3:3]),
    "empty, 3-d": (30, lambda m: m.reshape(5, 6, 1)[:, 2:2]),
    "one": (3, lambda m: m[1:2]),
    "strided": (1000, lambda m: m[1::3]),
    "backwards": (100, lambda m: m[90:10:-2]),
    "transposed": (35 * 47, lambda m: m.reshape(35, 47).T),
    "transposed with gaps": (35 * 47, lambda m: m.reshape(35, 47)[2:-3, 1:-1:2].T),
    "columns": (64 * 33, lambda m: m.reshape(64, 33)[:, :17]),
    "one column": (64 * 33, lambda m: m.reshape(64, 33)[:, 5:6]),
    "channels last": (2 * 3 * 5 * 7, lambda m: m.reshape(2, 5, 7, 3).transpose(0, 3, 1, 2)),
    "4-d with gaps": (5 * 6 * 7 * 8, lambda m: m.reshape(5, 6, 7, 8)[1:-1, ::2, 1:, 2:-1]),
    "4-d with gaps, permuted": (5 * 6 * 7 * 8, lambda m: m.reshape(5, 6, 7, 8)[1:, 1::2, ::3].transpose(2, 0, 3, 1)),
    "sizes of one": (60, lambda m: m.reshape(3, 1, 4, 1, 5)[1:, :, ::2, :, 1:3]),
}

# Split among threads.
LARGE_LAYOUTS = {
    "dense": lambda m: m[1:-1],
    "strided": lambda m: m[::2],
    "rows": lambda m: m.reshape(-1, 1000)[:, 1:-1],
    "transposed": lambda m: m.reshape(-1, 1000)[:, 1:-1].T,
}


def memory_of(rng, count, dtype):
    values = rng.normal(size=count) * 10.0 ** rng.integers(-8, 3, count)
    stored = to_storage(values, dtype)
    special = to_storage(SPECIAL, dtype)
    where = rng.uniform(size=count) < 0.2
    stored[where] = rng.choice(special, where.sum())
    return stored


def oracle(stored, dtype, low, high):
    with np.errstate(over="ignore"):  # a bound outside the dtype is infinite
        low, high = (to_storage(bound if dtype == "float64" else np.float32(bound), dtype) for bound in (low, high))
    values = to_values(stored, dtype)
    clipped = np.where(values < to_values(low, dtype), low, stored)
    return np.where(values > to_values(high, dtype), high, clipped)


def check(core, isa, dtype, memory, view, low, high):
    expected = memory.copy()
    view(expected)[...] = oracle(view(memory), dtype, low, high)
    for run in runs(core, isa):
        actual = memory.copy()
        core.clip_weights(run, [(view(actual), dtype)], low, high)
        assert_same_bits(actual, expected, f"between {low} and {high}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(core, isa, dtype, layout):
    count, view = LAYOUTS[layout]
    memory = memory_of(np.random.default_rng(4), count, dtype)
    for low, high in BOUNDS:
        check(core, isa, dtype, memory, view, low, high)


@pytest.mark.parametrize("dtype", DTYPES)
def test_lengths(core, isa, dtype):
    """Every tail of a vector, at every start within one."""
    for count in range(0, 70, 7 if QUICK else 1):
        memory = memory_of(np.random.default_rng(5), count + 140, dtype)
        for begin in (64, 65, 67):
            check(core, isa, dtype, memory, lambda m, b=begin, c=count: m[b : b + c], -0.01, 0.02)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern(core, isa, dtype):
    values = half_values(dtype)
    memory = np.arange(1 << 16, dtype=np.uint16)
    for low, high in BOUNDS[:3] if QUICK else [*BOUNDS, (values[1], values[0x3C00]), (-values[7], values[7])]:
        check(core, isa, dtype, memory, lambda m: m, low, high)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layout", LARGE_LAYOUTS)
def test_a_large_tensor(core, isa, dtype, layout):
    memory = memory_of(np.random.default_rng(6), 400_000, dtype)
    check(core, isa, dtype, memory, LARGE_LAYOUTS[layout], -0.01, 0.01)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_tensor_more_than_once(core, isa, dtype):
    """Shared parameters: no two threads may write them at once. Three times, which no split in seven keeps together."""
    memory = memory_of(np.random.default_rng(6), 130_000, dtype)
    for view in (lambda m: m, lambda m: m.reshape(-1, 1000)[:, 1:-1]):
        expected = memory.copy()
        view(expected)[...] = oracle(view(memory), dtype, -0.01, 0.01)
        for run in runs(core, isa):
            actual = memory.copy()
            core.clip_weights(run, [(view(actual), dtype)] * 3, -0.01, 0.01)
            assert_same_bits(actual, expected)


def test_many_tensors(core, isa):
    """Tensors of all dtypes and layouts in one call, some empty, enough of them to be split among threads."""
    rng = np.random.default_rng(7)
    cases = [(name, dtype) for name in LAYOUTS for dtype in DTYPES] * (1 if QUICK else 3)
    memories = [memory_of(rng, LAYOUTS[name][0], dtype) for name, dtype in cases]
    memories.append(memory_of(rng, 100_000, "float32"))
    cases.append(("dense", "float32"))
    expected = [memory.copy() for memory in memories]
    for (name, dtype), memory in zip(cases, expected):
        view = LAYOUTS[name][1](memory)
        view[...] = oracle(view, dtype, -0.01, 0.01)
    for run in runs(core, isa):
        actual = [memory.copy() for memory in memories]
        core.clip_weights(run, [(LAYOUTS[n][1](m), d) for (n, d), m in zip(cases, actual)], -0.01, 0.01)
        for (name, dtype), got, wanted in zip(cases, actual, expected):
            assert_same_bits(got, wanted, f"{name}, {dtype}")


def test_no_tensors(core, isa):
    for run in runs(core, isa):
        core.clip_weights(run, [], -1, 1)


@pytest.mark.parametrize("dtype", DTYPES)
def test_already_inside(core, isa, dtype):
    memory = np.zeros(100, STORAGE[dtype])
    check(core, isa, dtype, memory, lambda m: m, -1, 1)
