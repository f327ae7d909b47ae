"""norm_penalty and its derivatives in CUDA, run by the CPU, against the formulas in float64."""

import numpy as np
import pytest
from core_arrays import (
    QUICK,
    SIMT_DTYPES,
    SUM_TOLERANCE,
    WIDE,
    assert_close,
    assert_same_bits,
    for_any_order,
    many_threads,
    place,
    to_values,
)
from test_core_norm_penalty import (
    SETTINGS,
    Oracle,
    assert_sums_close,
    backward,
    double_backward,
    forward,
    numbers_per_value,
    samples,
)

WARP_ROW, CHUNK = 512, 4096  # elements of a row that a warp, and a block, sums
SAMPLES = 4096  # whose penalties one block adds up
SMALL = (0, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65, WARP_ROW - 1, WARP_ROW, WARP_ROW + 1)
# Rows in chunks: few, which one thread adds up, and more than eight, which a warp does.
LARGE = (CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 3, 2 * CHUNK + 8, 9 * CHUNK + 4)


def cases(rng, dtype):
    """Of every setting, sizes and alignments in turn."""
    turn = 0
    for D in (*SMALL, *(LARGE[1:3] if QUICK else LARGE)):
        for setting in SETTINGS[D % 2 :: 3] if QUICK or D > CHUNK else SETTINGS:
            turn += 1
            B = (1, 2, 3)[turn % 3] if D > WARP_ROW else (turn * 5 + D) % 11
            shift = turn // 2 % 2
            grad = samples(rng, B, D, dtype, shift)
            yield grad, setting, shift, f"B {B}, D {D}, {setting}, shift {shift}"


def check_all(simt, rng, dtype, grad, setting, shift, message):
    """Forward, backward and double backward."""
    oracle, penalty, B = Oracle(grad, dtype, setting), simt.NormPenalty(*setting), len(grad)
    values = B if setting[2] == "none" else 1
    value, norms = for_any_order(simt, lambda run: forward(simt, run, dtype, penalty, grad, values))
    np.testing.assert_allclose(norms, oracle.norms, rtol=SUM_TOLERANCE, err_msg=message)
    if B == 0 and setting[2] == "mean":
        assert np.isnan(value).all(), message  # as torch.mean has it
    else:
        assert_sums_close(value, *oracle.value(), message)

    grad_value = numbers_per_value(rng, B, setting[2], dtype)
    arguments = dtype, penalty, grad_value, grad, oracle.norms
    (grad_x,) = for_any_order(simt, lambda run: backward(simt, run, *arguments, shift))
    assert_close(grad_x, *oracle.gradient(grad_value.astype(np.float64)), dtype, message)

    # Not at right angles to grad: what lies along grad is then a visible part of the result.
    u = place(3 * oracle.x + 0.5 * rng.normal(size=grad.shape) / np.sqrt(max(grad.shape[1], 1)), dtype, shift)
    arguments = dtype, penalty, u, grad_value, grad, oracle.norms
    grad_grad_value, grad_x = for_any_order(simt, lambda run: double_backward(simt, run, *arguments, shift))
    expected, expected_x = oracle.double_backward(to_values(u, dtype), grad_value.astype(np.float64))
    assert_sums_close(grad_grad_value, *expected, message)
    assert_close(grad_x, *expected_x, dtype, message)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_every_pass(simt, dtype):
    rng = np.random.default_rng(40)
    for case in cases(rng, dtype):
        check_all(simt, rng, dtype, *case)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_arrays_that_do_not_lie_alike(simt, dtype):
    rng = np.random.default_rng(41)
    for D in (8, 67, 640):
        setting = SETTINGS[0]
        for grad_shift, shift in ((0, 1), (1, 0), (1, 2)):
            grad = samples(rng, 3, D, dtype, grad_shift)
            check_all(simt, rng, dtype, grad, setting, shift, f"D {D}, shifts {grad_shift}, {shift}")


@many_threads
@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_large_batches(simt, dtype):
    """More rows than a block of the second stage has threads, and takes, and than a block has factors."""
    rng = np.random.default_rng(42)
    many = SAMPLES + 1
    for B, D in ((257, 1), (130, 3), (many, 2)) if QUICK else ((511, 1), (513, 3), (many, 1), (257, 8), (100, 513)):
        for setting in SETTINGS[:2]:
            check_all(simt, rng, dtype, samples(rng, B, D, dtype), setting, 0, f"B {B}, D {D}, {setting}")


@many_threads
def test_launches(simt):
    """Two for a sum over the samples, three where many blocks take them; one for a value each where a block sums a
    row."""
    for B, D, reduction, launches in (
        (3, CHUNK, "none", 1),
        (3, CHUNK, "mean", 2),
        (3, CHUNK + 1, "none", 2),
        (3, 0, "sum", 2),
        (SAMPLES, 1, "sum", 2),
        (SAMPLES + 1, 1, "sum", 3),
        (SAMPLES + 1, 1, "none", 1),
    ):
        penalty, grad = simt.NormPenalty(1.0, False, reduction, 10.0), np.ones((B, D))
        before = simt.launches()
        forward(simt, simt.Run(), "float64", penalty, grad, B if reduction == "none" else 1)
        assert simt.launches() - before == launches, (B, D, reduction)


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_a_sample_alone_is_the_sample_in_a_batch(simt, dtype):
    """A sample's sum does not depend on where in the batch it is, nor on where in memory."""
    rng = np.random.default_rng(43)
    for D in (5, 64, 67, WARP_ROW + 8, CHUNK + 77):
        grad = samples(rng, 5, D, dtype)
        penalty = simt.NormPenalty(1.0, False, "none", 10.0)
        _, norms = forward(simt, simt.Run(), dtype, penalty, grad, 5)
        for row in range(5):
            alone = place(to_values(grad[row : row + 1], dtype), dtype, shift=row)
            assert_same_bits(forward(simt, simt.Run(), dtype, penalty, alone, 1)[1], norms[row : row + 1])


@pytest.mark.parametrize("dtype", SIMT_DTYPES)
def test_what_is_not_finite_stays_in_its_sample(simt, dtype):
    x = np.full((4, 37), 0.25)
    x[1, 36], x[2, 3], x[3, 0] = np.nan, np.inf, -np.inf
    grad = place(x, dtype)
    for setting in SETTINGS:
        penalty = simt.NormPenalty(setting[0], setting[1], "none", setting[3])
        value, norms = forward(simt, simt.Run(), dtype, penalty, grad, 4)
        np.testing.assert_array_equal(norms, [np.sqrt(37) / 4, np.nan, np.inf, np.inf])
        np.testing.assert_array_equal(np.isnan(value), [False, True, False, False])
        np.testing.assert_array_equal(value[2:], np.inf)
        (grad_x,) = backward(simt, simt.Run(), dtype, penalty, np.ones(4, WIDE[dtype]), grad, norms)
        assert np.isfinite(to_values(grad_x[0], dtype)).all()
        assert np.isnan(to_values(grad_x[1, 36], dtype))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize("norm", [1e-15, 1e-22, 1e-30, 1e-37, 1e-39, 1e-40])
def test_tiny_gradients(simt, dtype, norm):
    """The scales 1/n and 1/n^2 leave float32's range long before the derivatives do."""
    rng = np.random.default_rng(44)
    setting = (1.0, False, "sum", 1.0)
    penalty, grad_value = simt.NormPenalty(*setting), np.ones(1, WIDE[dtype])
    for B, D in ((1, 3), (3, 41), (2, 600)):
        x = rng.normal(size=(B, D)) * (norm / np.sqrt(D))
        x[:, 1] = 0  # infinity times 0 would be NaN
        grad = place(x, dtype)
        oracle = Oracle(grad, dtype, setting)
        if (oracle.norms == 0).any():
            continue
        _, norms = forward(simt, simt.Run(), dtype, penalty, grad, 1)
        np.testing.assert_allclose(norms, oracle.norms, rtol=SUM_TOLERANCE)
        unit = oracle.norms[:, None] if norm > 1e-36 else 1  # the results for a unit u overflow below
        u = place(3 * oracle.x / unit, dtype)
        (grad_x,) = backward(simt, simt.Run(), dtype, penalty, grad_value, grad, oracle.norms)
        assert_close(grad_x, *oracle.gradient(np.ones(1)), dtype, f"backward, D {D}")
        grad_grad_value, grad_x = double_backward(simt, simt.Run(), dtype, penalty, u, grad_value, grad, oracle.norms)
        expected, expected_x = oracle.double_backward(to_values(u, dtype), np.ones(1))
        assert_sums_close(grad_grad_value, *expected, f"D {D}")
        assert_close(grad_x, *expected_x, dtype, f"double backward, D {D}")
