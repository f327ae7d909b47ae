"""minibatch_discrimination and its derivatives: closeness of samples, against the formulas in float64."""

from __future__ import annotations

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, STORAGE, Output, assert_close, for_any_threads, place, to_values

# (B, F, K), and the rows that are asked for: fewer and more samples than a vector holds, than go over the others
# together, and than are weighed at a time; one feature, whose pairs are cut into parts; more numbers than a chunk has.
CASES = [
    ((0, 3, 2), (0, 0)),
    ((1, 2, 3), (0, 1)),
    ((5, 0, 3), (0, 5)),
    ((5, 2, 0), (0, 5)),
    ((2, 1, 1), (0, 2)),
    ((7, 3, 5), (0, 7)),
    ((9, 2, 16), (0, 9)),
    ((17, 17, 17), (0, 17)),
    ((65, 2, 4), (0, 65)),
    ((40, 3, 33), (5, 22)),
    ((33, 1, 3), (33, 33)),
    ((20, 2, 3), (19, 20)),
    ((300, 1, 2), (0, 300)),
    ((280, 2, 3), (260, 280)),
]
if QUICK:
    CASES = [CASES[k] for k in (1, 6, 9, 11)]


class Oracle:
    """Every pair at once. Magnitudes are the sums of the terms' magnitudes, where each distance counts for what its
    rounding does to the term."""

    def __init__(self, m, dtype, rows):
        self.rows, self.m = slice(*rows), to_values(m, dtype)
        self.sign = np.sign(self.m[:, None] - self.m[None])
        self.distance = np.abs(self.m[:, None] - self.m[None]).sum(-1)
        self.e = np.exp(-self.distance) * (1 - np.eye(len(m)))[:, :, None]
        # A distance of K terms in float is off by some roundings of itself.
        self.slack = 1 + 4 * self.distance

    def value(self):
        return self.e.sum(1)[self.rows], (self.e * self.slack).sum(1)[self.rows]

    def weights(self, grad_o):
        w = np.zeros(self.e.shape[1:])
        w[self.rows] = grad_o
        return w[:, None] + w[None], np.abs(w[:, None]) + np.abs(w[None])

    def backward(self, grad_o):
        w, most = self.weights(grad_o)
        terms = -(w * self.e)[..., None] * self.sign
        return terms.sum(1), (most * self.e * self.slack)[..., None].repeat(self.m.shape[-1], -1).sum(1)

    def double_backward(self, u, grad_o):
        w, most = self.weights(grad_o)
        difference = u[:, None] - u[None]
        slope, steepest = (difference * self.sign).sum(-1), (np.abs(u[:, None]) + np.abs(u[None])).sum(-1)
        by_o = (-(self.e * slope).sum(1)[self.rows], (self.e * steepest * self.slack).sum(1)[self.rows])
        terms = (w * self.e * slope)[..., None] * self.sign
        return by_o, (terms.sum(1), (most * self.e * steepest * self.slack)[..., None].repeat(u.shape[-1], -1).sum(1))


def samples(rng, shape, dtype):
    """Numbers among which some agree, so that some signs are of 0."""
    x = rng.normal(size=shape) * 0.5
    x[1::3] = np.where(rng.uniform(size=x[1::3].shape) < 0.2, x[:1], x[1::3])
    return place(x, dtype)


def forward(module, run, dtype, m, rows):
    o = Output((rows[1] - rows[0], m.shape[1]), STORAGE[dtype])
    module.minibatch_discrimination(run, dtype, m, rows, o.array)
    return (o.written(),)


def backward(module, run, dtype, grad_o, m, rows):
    grad_m = Output(m.shape, STORAGE[dtype])
    module.minibatch_discrimination_backward(run, dtype, grad_o, m, rows, grad_m.array)
    return (grad_m.written(),)


def double_backward(module, run, dtype, u, grad_o, m, rows):
    by_o, by_m = Output(grad_o.shape, STORAGE[dtype]), Output(m.shape, STORAGE[dtype])
    module.minibatch_discrimination_double_backward(run, dtype, u, grad_o, m, rows, by_o.array, by_m.array)
    return by_o.written(), by_m.written()


def check_all(module, in_every_way, rng, dtype, shape, rows):
    """Every pass; in_every_way(call) is what call(run) returns, after checking that it does not depend on the run."""
    m, u = samples(rng, shape, dtype), place(rng.normal(size=shape), dtype)
    grad_o = place(rng.normal(size=(rows[1] - rows[0], shape[1])), dtype)
    oracle, where = Oracle(m, dtype, rows), f"{shape}, {rows}"
    w, along = to_values(grad_o, dtype), to_values(u, dtype)
    (o,) = in_every_way(lambda run: forward(module, run, dtype, m, rows))
    assert_close(o, *oracle.value(), dtype, f"value of {where}")
    (grad_m,) = in_every_way(lambda run: backward(module, run, dtype, grad_o, m, rows))
    assert_close(grad_m, *oracle.backward(w), dtype, f"backward of {where}")
    by_o, by_m = in_every_way(lambda run: double_backward(module, run, dtype, u, grad_o, m, rows))
    expected_by_o, expected_by_m = oracle.double_backward(along, w)
    assert_close(by_o, *expected_by_o, dtype, f"double backward by grad_o of {where}")
    assert_close(by_m, *expected_by_m, dtype, f"double backward of {where}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_pass(core, isa, dtype):
    rng = np.random.default_rng(61)
    for shape, rows in CASES:
        check_all(core, lambda call: for_any_threads(core, isa, call), rng, dtype, shape, rows)


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_in_its_feature(core, isa, dtype):
    x = np.random.default_rng(62).normal(size=(20, 3, 4))
    x[7, 1, 2], x[3, 2, 0] = np.nan, np.inf
    m = place(x, dtype)
    (o,) = forward(core, core.Run(isa), dtype, m, (0, 20))
    value = to_values(o, dtype)
    assert np.isfinite(value[:, [0, 2]]).all() and np.isnan(value[:, 1]).all()
    assert value[3, 2] == 0
