"""rmsprop_clip in CUDA, run by the CPU: the CPU kernels' tests, and sizes around packs, chunks and launches."""

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, SIMT_DTYPES, STORAGE, assert_same_bits, many_threads
from test_core_rmsprop_clip import (
    NAMES,
    STEPS,
    check,
    check_numbers_on_device,
    check_stats,
    drawn,
    hold,
    stepped,
)

CHUNK_BYTES = 8192  # of every array that a block steps
TENSORS_PER_LAUNCH = 60


def in_both_orders(simt, sizes, step, shifts=(0,)):
    first, last = (check(simt, simt.Run(reverse), sizes, step, shifts) for reverse in (False, True))
    for one, other in zip(first, last):
        for name in one:
            assert_same_bits(one[name], other[name], f"{name} in another order of threads")


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
@pytest.mark.parametrize("name", STEPS)
def test_lengths(simt, dtype, name):
    """Every tail of 16 bytes, at every start within them; just under and over a chunk and two."""
    chunk = CHUNK_BYTES // np.dtype(STORAGE[dtype]).itemsize
    lengths = [*range(0, 20, 6 if QUICK else 1), chunk - 1, chunk, chunk + 1, 2 * chunk + 1]
    if QUICK:
        lengths = lengths[:-1]
    in_both_orders(simt, [(length, dtype) for length in lengths], STEPS[name], (0, 1) if QUICK else (0, 1, 3))


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_arrays_that_begin_at_different_places_of_16_bytes(simt, dtype):
    chunk = CHUNK_BYTES // np.dtype(STORAGE[dtype]).itemsize
    for size in (5, chunk + 3):
        values = drawn(np.random.default_rng(53), size, dtype)
        (expected,), _ = stepped(simt, simt.Run(), [(dtype, values, 0)], STEPS["all"])
        for moved in NAMES:
            held = hold(values, dtype, STEPS["all"], 0)
            held[moved] = hold(values, dtype, STEPS["all"], 1)[moved]
            arrays = [held[name].array for name in NAMES]
            simt.rmsprop_clip(simt.Run(), [(dtype, *arrays, None)], list(STEPS["all"][0]), [None] * 3, None)
            for name, output in held.items():
                assert_same_bits(output.written(), expected[name], f"{name} where {moved} is moved")


@many_threads
def test_a_critic_in_one_launch(simt):
    before = simt.launches()
    sizes = [(17 * k % 90, DTYPES[k % 4]) for k in range(TENSORS_PER_LAUNCH)]
    check(simt, simt.Run(), sizes, STEPS["momentum"])
    assert simt.launches() - before == 1
    check(simt, simt.Run(), [*sizes, (5, "float32")], STEPS["plain"])
    assert simt.launches() - before == 3


def test_numbers_on_device(simt):
    check_numbers_on_device(simt, simt.Run())


def test_stats(simt):
    for reverse in (False, True):
        check_stats(simt, simt.Run(reverse))


def test_nothing(simt):
    before = simt.launches()
    simt.rmsprop_clip(simt.Run(), [], list(STEPS["plain"][0]), [None] * 3, None)
    assert simt.launches() == before
