"""minibatch_stddev and its derivatives: how much the samples of a group differ, against the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, STORAGE, Output, assert_close, for_any_threads, place, to_values

# (G, M, F, P): numbers around those of a vector and of a chunk; one sample, many samples.
SHAPES = [
    (1, 3, 2, 5),
    (4, 0, 1, 5),
    (2, 1, 1, 1),
    (3, 2, 1, 4),
    (4, 2, 3, 8),
    (4, 1, 2, 9),
    (2, 5, 1, 31),
    (17, 1, 2, 16),
    (2, 1, 1, 4095),
    (2, 1, 1, 4096),
    (3, 1, 2, 4099),
    (2, 2, 1, 9000),
]
if QUICK:
    SHAPES = [SHAPES[k] for k in (0, 3, 5, 7, 10)]


class Oracle:
    def __init__(self, x, dtype):
        self.x = to_values(x, dtype)
        self.centred = self.x - self.x.mean(0)
        self.deviation = np.sqrt((self.centred**2).mean(0) + 1e-8)

    def value(self):
        return self.deviation.mean(-1)

    def factor(self, grad_value):
        return grad_value[..., None] / (self.x.shape[0] * self.x.shape[-1] * self.deviation)

    def backward(self, grad_value):
        grads = self.factor(grad_value) * self.centred
        return grads, np.abs(grads)

    def double_backward(self, u, grad_value):
        covariance = (u * self.centred).mean(0)
        by_value = (covariance / self.deviation).mean(-1)
        terms = np.abs(u).max(0) * np.abs(self.centred).max(0) / self.deviation
        parts = u, u.mean(0), covariance / self.deviation**2 * self.centred
        grads = self.factor(grad_value) * (parts[0] - parts[1] - parts[2])
        largest = np.abs(self.factor(grad_value)) * sum(np.abs(part) for part in parts)
        return (by_value, terms.mean(-1)), (grads, largest)


def forward(module, run, dtype, x):
    value = Output(x.shape[1:3], STORAGE[dtype])
    module.minibatch_stddev(run, dtype, x, value.array)
    return (value.written(),)


def backward(module, run, dtype, grad_value, x, shift):
    grad_x = Output(x.shape, STORAGE[dtype], shift)
    module.minibatch_stddev_backward(run, dtype, grad_value, x, grad_x.array)
    return (grad_x.written(),)


def double_backward(module, run, dtype, u, grad_value, x, shift):
    by_value, by_x = Output(grad_value.shape, STORAGE[dtype]), Output(x.shape, STORAGE[dtype], shift)
    module.minibatch_stddev_double_backward(run, dtype, u, grad_value, x, by_value.array, by_x.array)
    return by_value.written(), by_x.written()


def check_all(module, in_every_way, rng, dtype, shape, shift=0):
    """Every pass; in_every_way(call) is what call(run) returns, after checking that it does not depend on the run."""
    x, u = (place(rng.normal(size=shape) + 3, dtype, shift) for _ in range(2))
    grad_value = place(rng.normal(size=shape[1:3]), dtype)
    oracle, w, along = Oracle(x, dtype), to_values(grad_value, dtype), to_values(u, dtype)
    (value,) = in_every_way(lambda run: forward(module, run, dtype, x))
    assert_close(value, oracle.value(), oracle.value(), dtype, f"value of {shape}")
    (grad_x,) = in_every_way(lambda run: backward(module, run, dtype, grad_value, x, shift))
    # In float64 the mean, which is taken away, counts with all its digits.
    mean = 10 * np.abs(oracle.factor(w)) if dtype == "float64" else 0
    expected, most = oracle.backward(w)
    assert_close(grad_x, expected, most + mean, dtype, f"backward of {shape}")
    by_value, by_x = in_every_way(lambda run: double_backward(module, run, dtype, u, grad_value, x, shift))
    (expected, most), (expected_x, most_x) = oracle.double_backward(along, w)
    assert_close(by_value, expected, most, dtype, f"double backward by grad_value of {shape}")
    mean = mean * (1 + np.abs(along).max(0) / oracle.deviation)  # where samples almost agree
    assert_close(by_x, expected_x, most_x + mean, dtype, f"double backward of {shape}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass(core, isa, dtype):
    rng = np.random.default_rng(71)
    for at, shape in enumerate(SHAPES):
        check_all(core, lambda call: for_any_threads(core, isa, call), rng, dtype, shape, at % 3)


@pytest.mark.parametrize("dtype", DTYPES)
def test_equal_samples(core, isa, dtype):
    """The root of the floor, and derivatives of zero."""
    x = place(np.full((4, 1, 2, 11), 0.25), dtype)
    (value,) = forward(core, core.Run(isa), dtype, x)
    assert_close(value, np.full((1, 2), 1e-4), 1e-4, dtype, "value")
    (grad_x,) = backward(core, core.Run(isa), dtype, place(np.ones((1, 2)), dtype), x, 0)
    assert (to_values(grad_x, dtype) == 0).all()
