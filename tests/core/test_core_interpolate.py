"""interpolate: mix * real + (1 - mix) * fake."""

import numpy as np
import pytest
from core_arrays import (
    DTYPES,
    QUICK,
    STORAGE,
    WIDE,
    Output,
    assert_same_numbers,
    for_any_threads,
    place,
    to_storage,
    to_values,
)

FEATURES = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 100, 16383, 16384, 16385, 32769)
QUICK_FEATURES = (0, 1, 4, 5, 9, 17, 33, 16385)


def oracle(real, fake, mix, dtype):
    """In the computing type with one rounding per operation, so that the result is known to the last bit."""
    wide = WIDE[dtype]
    mix = mix[:, None]
    with np.errstate(all="ignore"):
        mixed = mix * to_values(real, dtype).astype(wide) + (wide(1) - mix) * to_values(fake, dtype).astype(wide)
    return to_storage(mixed, dtype)


def check(core, isa, dtype, real, fake, mix, shift=0):
    def call(run):
        out = Output(real.shape, STORAGE[dtype], shift)
        core.interpolate(run, dtype, real, fake, mix, out.array)
        return (out.written(),)

    (out,) = for_any_threads(core, isa, call)
    assert_same_numbers(out, oracle(real, fake, mix, dtype), dtype, f"{real.shape}, shift {shift}")


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("B", [0, 1, 3])
def test_sizes_and_alignments(core, isa, dtype, B):
    rng = np.random.default_rng(2)
    mix = rng.uniform(size=B).astype(WIDE[dtype])
    for D in QUICK_FEATURES if QUICK else FEATURES:
        for shift in (0, 1, 3):
            real = place(rng.normal(size=(B, D)), dtype, shift)
            fake = place(rng.normal(size=(B, D)) * 100, dtype, 2 * shift)
            check(core, isa, dtype, real, fake, mix, shift)


@pytest.mark.parametrize("dtype", DTYPES)
def test_ends_and_special_numbers(core, isa, dtype):
    special = np.array([0.0, -0.0, 1e-7, -1e-7, 3e4, 1e39, np.inf, -np.inf, np.nan, 1.0])
    real, fake = (part.ravel() for part in np.meshgrid(special, special))
    mix = np.array([0.0, 1.0, 0.5, 2.0**-30, 1 - 2.0**-24, 0.1], WIDE[dtype])
    rows = [place(np.tile(part, (len(mix), 1)), dtype) for part in (real, fake)]
    check(core, isa, dtype, *rows, mix)


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_large_batch(core, isa, dtype):
    rng = np.random.default_rng(3)
    B, D = (7, 16390) if QUICK else (21, 50001)
    mix = rng.uniform(size=B).astype(WIDE[dtype])
    check(core, isa, dtype, *(place(rng.normal(size=(B, D)), dtype) for _ in range(2)), mix)
