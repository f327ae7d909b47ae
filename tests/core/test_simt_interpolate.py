"""interpolate in CUDA, run by the CPU: to the last bit, as on the CPU."""

import numpy as np
import pytest
from core_arrays import (
    QUICK,
    SIMT_DTYPES,
    STORAGE,
    WIDE,
    Output,
    assert_same_numbers,
    for_any_order,
    place,
)
from test_core_interpolate import oracle

# Elements that a block does: of packs of 16 bytes, and where the arrays do not lie alike.
TILES = {"float64": 2048, "float32": 4096, "bfloat16": 8192, "float16": 8192}
SCATTERED_TILE = 1024
SMALL = [(B, D) for B in (0, 1, 3) for D in (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 33)]
# Many rows in a block: as many as it has threads, one less, one more, and more than one block of them.
MANY_ROWS = [(B, D) for B in (255, 256, 257, 1025) for D in (1, 3, 8)]


def check(simt, dtype, B, D, shifts, rng):
    """shifts of real, fake and out, in elements past a multiple of 16 bytes."""
    real, fake = (
        place(rng.normal(size=(B, D)), dtype, shifts[0]),
        place(rng.normal(size=(B, D)) * 100, dtype, shifts[1]),
    )
    mix = rng.uniform(size=B).astype(WIDE[dtype])

    def call(run):
        out = Output(real.shape, STORAGE[dtype], shifts[2])
        simt.interpolate(run, dtype, real, fake, mix, out.array)
        return (out.written(),)

    (out,) = for_any_order(simt, call)
    assert_same_numbers(out, oracle(real, fake, mix, dtype), dtype, f"{B}, {D}, shifts {shifts}")


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_small_sizes(simt, dtype):
    rng = np.random.default_rng(20)
    for B, D in SMALL:
        for shifts in ((0, 0, 0), (1, 1, 1)) if QUICK else ((0, 0, 0), (1, 1, 1), (3, 3, 3), (0, 1, 0), (1, 0, 0)):
            check(simt, dtype, B, D, shifts, rng)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_tiles(simt, dtype):
    """Just under and over what a block does, by one row and by several."""
    rng = np.random.default_rng(21)
    for shifts, tile in (((0, 0, 0), TILES[dtype]), ((1, 1, 1), TILES[dtype]), ((0, 1, 0), SCATTERED_TILE)):
        for D in (tile - 1, tile, tile + 1, 2 * tile + 1):
            check(simt, dtype, 1, D, shifts, rng)
        for D in (tile // 3, tile // 4, tile // 5 + 1):
            check(simt, dtype, 4, D, shifts, rng)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_many_rows(simt, dtype):
    rng = np.random.default_rng(22)
    for B, D in MANY_ROWS[:-3] if QUICK else MANY_ROWS:
        for shifts in ((0, 0, 0), (1, 1, 1), (0, 0, 1)):
            check(simt, dtype, B, D, shifts, rng)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_special_numbers(simt, dtype):
    special = np.array([0.0, -0.0, 1e-7, -1e-7, 3e4, 1e39, np.inf, -np.inf, np.nan, 1.0])
    real, fake = (part.ravel() for part in np.meshgrid(special, special))
    mix = np.array([0.0, 1.0, 0.5, 2.0**-30, 1 - 2.0**-24, 0.1], WIDE[dtype])
    real, fake = (place(np.tile(part, (len(mix), 1)), dtype) for part in (real, fake))
    out = Output(real.shape, STORAGE[dtype])
    simt.interpolate(simt.Run(), dtype, real, fake, mix, out.array)
    assert_same_numbers(out.written(), oracle(real, fake, mix, dtype), dtype)
