"""bias_leaky_relu in CUDA, run by the CPU: to the last bit, as on the CPU, but for the order of sums."""

import numpy as np
import pytest
from core_arrays import QUICK, SIMT_DTYPES, STORAGE, WIDE, Output, assert_same_bits, for_any_order, many_threads, place
from test_core_bias_leaky_relu import SETTINGS, check_passes, check_special_numbers

# [B, C, S]: a row of 128 elements is a warp's, of more than 512 a block's, in chunks of 4096; shorter rows are columns
# of C * S, in chunks of 128 rows, or of more where there are fewer columns. Without sums, a block does 4096 elements.
SMALL = [(0, 3, 2), (2, 0, 3), (3, 2, 0), (1, 1, 1), (5, 3, 1), (3, 5, 4), (2, 3, 33), (9, 8, 1), (3, 1, 8)]
ROWS = [(2, 3, 127), (2, 3, 128), (9, 1, 130), (1, 3, 512), (2, 1, 513), (1, 2, 4097)]
COLUMNS = [(130, 7, 5), (257, 33, 1), (300, 2, 1), (129, 130, 1), (17, 16, 16)]
MANY_COLUMNS = (5, 260, 1)
SHIFTS = (0, 1)


def check(simt, dtype, sizes, seed):
    rng = np.random.default_rng(seed)
    for k, (size, shift) in enumerate([(size, shift) for size in sizes for shift in SHIFTS]):
        settings = SETTINGS[k % len(SETTINGS)]
        for has_bias in (True, False) if not QUICK or k < 6 else (True,):
            check_passes(simt, lambda call: for_any_order(simt, call), rng, size, shift, dtype, settings, has_bias)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_small_sizes(simt, dtype):
    check(simt, dtype, SMALL, 61)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_rows(simt, dtype):
    check(simt, dtype, ROWS, 62)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_columns(simt, dtype):
    check(simt, dtype, COLUMNS, 63)


@many_threads
@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_many_columns(simt, dtype):
    check(simt, dtype, [MANY_COLUMNS], 65)


@many_threads
@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_sums_do_not_depend_on_where_memory_lies(simt, dtype):
    rng = np.random.default_rng(64)
    for size in [(300, 8, 1), (130, 4, 16), (129, 130, 4), (3, 2, 130), (2, 3, 513)]:
        numbers, found = rng.normal(size=(2, *size)), []
        for shift in SHIFTS:
            g, y = (place(each, dtype, shift) for each in numbers)
            grad_x, sums = Output(size, STORAGE[dtype], shift), Output(size[1:2], WIDE[dtype])
            simt.bias_leaky_relu_backward(simt.Run(), dtype, SETTINGS[0], g, y, grad_x.array, sums.array)
            found.append(sums.written())
        assert_same_bits(*found, f"{size}")


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_special_numbers(simt, dtype):
    check_special_numbers(simt, simt.Run(), dtype)
