"""clip_weights in CUDA, run by the CPU: to the last bit, and nothing else in memory touched."""

import numpy as np
import pytest
from core_arrays import DTYPES, HALVES, QUICK, SIMT_DTYPES, STORAGE, assert_same_bits
from test_core_weight_clip import BOUNDS, LAYOUTS, memory_of, oracle

CHUNK_BYTES = 16384  # that a block clips
TENSORS_PER_LAUNCH = 120
NUMBERS_PER_LAUNCH = 136  # sizes and strides of tensors with gaps


def check(simt, tensors, low, high):
    """tensors: of (memory, view of it, dtype). Returns how many launches there were."""
    expected = [memory.copy() for memory, _, _ in tensors]
    for (_, view, dtype), memory in zip(tensors, expected):
        view(memory)[...] = oracle(view(memory), dtype, low, high)
    for reverse in (False, True):
        actual = [memory.copy() for memory, _, _ in tensors]
        before = simt.launches()
        views = [(view(memory), dtype) for (_, view, dtype), memory in zip(tensors, actual)]
        simt.clip_weights(simt.Run(reverse), views, low, high)
        launches = simt.launches() - before
        for got, wanted, (_, _, dtype) in zip(actual, expected, tensors):
            assert_same_bits(got, wanted, f"{dtype} between {low} and {high}")
    return launches


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(simt, dtype, layout):
    count, view = LAYOUTS[layout]
    memory = memory_of(np.random.default_rng(30), count, dtype)
    for low, high in BOUNDS[:3] if QUICK else BOUNDS:
        check(simt, [(memory, view, dtype)], low, high)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_lengths(simt, dtype):
    """Every tail of 16 bytes, at every start within them; just under and over a chunk and two."""
    rng = np.random.default_rng(31)
    chunk = CHUNK_BYTES // np.dtype(STORAGE[dtype]).itemsize
    lengths = [*range(0, 20, 3 if QUICK else 1), chunk - 1, chunk, chunk + 1, 2 * chunk - 1, 2 * chunk + 1]
    for count in lengths:
        memory = memory_of(rng, count + 40, dtype)
        for begin in (16, 17, 19) if QUICK else range(16, 24):
            check(simt, [(memory, lambda m, b=begin, c=count: m[b : b + c], dtype)], -0.01, 0.02)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_chunks_with_gaps(simt, dtype):
    chunk = CHUNK_BYTES // np.dtype(STORAGE[dtype]).itemsize
    memory = memory_of(np.random.default_rng(32), 3 * (2 * chunk + 3), dtype)
    for count in (chunk - 1, chunk, chunk + 1, 2 * chunk + 1):
        check(simt, [(memory, lambda m, c=count: m[: 3 * c : 3], dtype)], -0.01, 0.02)
    check(simt, [(memory, lambda m: m[: len(m) // 33 * 33].reshape(-1, 33)[:, 1:-1].T, dtype)], -0.01, 0.02)


@pytest.mark.parametrize("dtype", HALVES)
def test_every_pattern(simt, dtype):
    memory = np.arange(1 << 16, dtype=np.uint16)
    for low, high in BOUNDS[:1] if QUICK else BOUNDS[:4]:
        check(simt, [(memory, lambda m: m, dtype)], low, high)


def dense(rng, count):
    cases = [(int(rng.integers(1, 70)), DTYPES[t % len(DTYPES)]) for t in range(count)]
    return [(memory_of(rng, size + 4, dtype), lambda m: m[3:-1], dtype) for size, dtype in cases]


def test_a_critic_in_one_launch(simt):
    """Tensors of all dtypes and layouts, some empty; then more of them than fit into the arguments of one launch."""
    rng = np.random.default_rng(33)
    mixed = [(memory_of(rng, count, dtype), view, dtype) for count, view in LAYOUTS.values() for dtype in DTYPES]
    if QUICK:  # as many blocks as ThreadSanitizer has room for
        mixed = mixed[::5]
    assert check(simt, mixed[: len(mixed) // 4], -0.01, 0.01) == 1
    assert check(simt, mixed, -0.01, 0.01) >= 1
    if QUICK:
        return
    assert check(simt, dense(rng, TENSORS_PER_LAUNCH), -0.01, 0.01) == 1
    assert check(simt, dense(rng, TENSORS_PER_LAUNCH + 1), -0.01, 0.01) == 2
    assert check(simt, dense(rng, 3 * TENSORS_PER_LAUNCH), -0.01, 0.01) == 3


def test_many_tensors_with_gaps(simt):
    rng = np.random.default_rng(34)
    numbers_each = 4
    for count in (NUMBERS_PER_LAUNCH // numbers_each + more for more in ((0,) if QUICK else (0, 1))):
        tensors = [
            (memory_of(rng, 60, dtype), lambda m: m.reshape(10, 6)[:, 1:4], dtype)
            for dtype in (DTYPES[t % len(DTYPES)] for t in range(2 if QUICK else count))
        ]
        assert check(simt, tensors, -0.01, 0.01) == (1 if count * numbers_each <= NUMBERS_PER_LAUNCH else 2)


def test_many_dimensions(simt):
    """As many as numpy has, none of which collapse."""
    for dims, size in ((32, 2), (64, 1)):
        memory = memory_of(np.random.default_rng(35), 1 << 12, "float32")
        shape, strides = [1] * dims, [4] * dims
        for d in range(6):
            shape[5 * d], strides[5 * d] = 1 + size, 4 * 3 ** (5 - d)
        view = lambda m, s=shape, t=strides: np.lib.stride_tricks.as_strided(m, s, t)  # noqa: E731
        check(simt, [(memory, view, "float32")], -0.01, 0.01)


def test_a_tensor_more_than_once(simt):
    """Shared parameters: no two blocks may write them."""
    memory = memory_of(np.random.default_rng(36), 5000, "float32")
    expected = oracle(memory, "float32", -0.01, 0.01)
    for same in (lambda m: m, lambda m: m.reshape(50, 100).T):
        actual = memory.copy()
        simt.clip_weights(simt.Run(), [(actual, "float32"), (same(actual), "float32")], -0.01, 0.01)
        assert_same_bits(actual, expected)


def test_nothing_to_clip(simt):
    before = simt.launches()
    simt.clip_weights(simt.Run(), [], -1, 1)
    simt.clip_weights(simt.Run(), [(np.empty(0), "float64")], -1, 1)
    assert simt.launches() == before
