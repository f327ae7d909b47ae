"""group_norm in CUDA, run by the CPU: against the formulas in float64, as on the CPU."""

import itertools

import numpy as np
import pytest
from core_arrays import QUICK, SIMT_DTYPES, for_any_order, many_threads, to_values
from test_core_group_norm import Problem, settings

# B, C, S, groups: a block has 256 threads, each with 2 to 8 elements at a time; parameters are summed in blocks of 32
# channels; chunks are of 32 positions, or of a sample where samples are few.
SIZES = [
    (0, 4, 3, 2),
    (1, 5, 1, 1),
    (3, 7, 1, 1),
    (70, 33, 1, 1),
    (2, 1040, 1, 1),
    (5, 24, 1, 3),
    (3, 6, 4, 6),
    (4, 6, 9, 2),
    (2, 16, 5, 2),
    (2, 4, 261, 2),
]
QUICK_SIZES = [(3, 7, 1, 1), (20, 33, 1, 1), (2, 8, 5, 2), (2, 4, 130, 2)]
# With fewer groups than fill a GPU, and more than 16384 elements in each.
LONG = [(2, 2, 9001, 1), (1, 3, 17000, 3), (1, 40000, 1, 1)]


def check(simt, problem, message):
    problem.check(lambda f: for_any_order(simt, lambda run: f((simt, run))), message)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_every_pass(simt, dtype):
    rng = np.random.default_rng(60)
    for n, size in enumerate(QUICK_SIZES if QUICK else SIZES):
        some = slice(n % 3, None, 3) if QUICK else slice(None)
        for k, (channels_last, (affine, along)) in list(enumerate(settings()))[some]:
            problem = Problem(rng, dtype, size, channels_last, affine, along, shift=k % 2)
            check(simt, problem, f"{size}, {channels_last}, {affine}, {along}")


@many_threads
@pytest.mark.parametrize("dtype", ["float32"] if QUICK else SIMT_DTYPES)
def test_several_blocks_for_a_group(simt, dtype):
    rng = np.random.default_rng(61)
    for size, channels_last in itertools.product(LONG[:1] if QUICK else LONG, (False, True)):
        check(simt, Problem(rng, dtype, size, channels_last), f"{size}, {channels_last}")


@many_threads
def test_launches(simt):
    """One for all groups, or two where a group has several blocks; two more for the parameters."""
    rng = np.random.default_rng(62)
    for size, launches in (((3, 4, 5, 2), 1), (LONG[0], 2)):
        for affine, extra in ((False, 0), (True, 2)):
            problem = Problem(rng, "float32", size, affine=affine)
            for call, more in ((problem.forward, 0), (problem.backward, extra), (problem.double_backward, extra)):
                before = simt.launches()
                call(simt, simt.Run())
                assert simt.launches() - before == launches + more, (size, affine, call)


@pytest.mark.parametrize("channels_last", [False, True])
def test_far_from_zero(simt, channels_last):
    rng = np.random.default_rng(63)
    check(simt, Problem(rng, "float32", (2, 6, 70, 3), channels_last, centre=1000.0), "far")


def test_what_is_not_finite_stays_in_its_group(simt):
    rng = np.random.default_rng(64)
    problem = Problem(rng, "float32", (3, 4, 37, 2))
    problem.x[1, 2, 36] = np.nan
    y, _, rstd = problem.forward(simt, simt.Run())
    bad = np.zeros((3, 4), bool)
    bad[1, 2:] = True
    np.testing.assert_array_equal(np.isnan(to_values(y, "float32")).all(2), bad)
    np.testing.assert_array_equal(np.isnan(rstd), bad[:, ::2])
