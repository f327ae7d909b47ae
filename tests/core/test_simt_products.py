"""The products of tiles on tensor cores, run by the CPU: which entries meet, and with how many digits."""

import numpy as np
import pytest
from core_arrays import DTYPES, WIDE, Output, place, to_values
from test_simt_kernel_sums import both_orders

ROWS, COLUMNS = 64, 8
# Of a product's largest terms: what is left out, and what tensor cores cut off.
PRECISION = {"float64": 1e-15, "float32": 2.0**-20, "tf32": 2.0**-9, "bfloat16": 2.0**-20, "float16": 2.0**-20}


def multiply(simt, run, dtype, tf32, a, b):
    dots, weighted = (Output((ROWS, COLUMNS), WIDE[dtype]) for _ in range(2))
    simt.tile_products(run, dtype, tf32, a, b, dots.array, weighted.array)
    return [dots.written(), weighted.written()]


@pytest.mark.parametrize("name", PRECISION)
@pytest.mark.parametrize("width", [16, 32])
def test_products_of_tiles(simt, name, width):
    dtype, tf32 = ("float32", True) if name == "tf32" else (name, False)
    rng = np.random.default_rng(width)
    a, b = (place(rng.normal(size=(count, width)), dtype) for count in (ROWS, COLUMNS))
    left, right = to_values(a, dtype), to_values(b, dtype)
    dots, weighted = both_orders(simt, lambda run: multiply(simt, run, dtype, tf32, a, b))
    assert abs(dots - left @ right.T).max() < PRECISION[name] * (abs(left) @ abs(right.T)).max()
    expected = dots.astype(float) @ right[:, :8]
    assert abs(weighted - expected).max() < PRECISION[name] * (abs(dots.astype(float)) @ abs(right[:, :8])).max()


@pytest.mark.parametrize("dtype", [name for name in DTYPES if name != "float64"])
def test_products_of_integers_are_exact(simt, dtype):
    """With as many digits as the dtype has, or two factors of float32 have on tensor cores without their rests."""
    rng = np.random.default_rng(1)
    most = {"bfloat16": 2**8, "float16": 2**11, "float32": 2**11}[dtype]
    a, b = np.zeros((ROWS, 16)), np.zeros((COLUMNS, 16))
    a[np.arange(ROWS), np.arange(ROWS) % 16] = rng.integers(most // 2, most, ROWS)
    b[:] = rng.integers(-most + 1, most, b.shape)
    dots, _ = multiply(simt, simt.Run(), dtype, False, place(a, dtype), place(b, dtype))
    np.testing.assert_array_equal(dots, a @ b.T)
