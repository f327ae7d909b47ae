"""rmsprop_clip against its formula in float64, on arrays that notice a stray write."""

import numpy as np
import pytest
from core_arrays import DTYPES, QUICK, Output, assert_same_bits, place, runs, to_storage, to_values

# lr, alpha, eps, weight_decay, momentum, grad_factor, low, high; centered.
STEPS = {
    "plain": ((0.05, 0.9, 1e-3, 0, 0, 1, -0.1, 0.1), False),
    "momentum": ((0.05, 0.9, 1e-3, 0, 0.8, 1, -0.1, 0.2), False),
    "centered": ((0.05, 0.9, 1e-2, 0, 0, -1, -0.1, 0.1), True),
    "all": ((0.05, 0.3, 1e-2, 0.1, 0.5, -1, -0.3, 0.1), True),
    "no bounds": ((0.05, 0.9, 1e-3, 0.1, 0, 1, -np.inf, np.inf), False),
}
# Roundings that a new number may be off by, in units of its dtype and of the largest there is.
ROUNDINGS = {"float64": 64, "float32": 64, "bfloat16": 0.51, "float16": 0.51}
EPS = {"float64": 2.0**-52, "float32": 2.0**-23, "bfloat16": 2.0**-7, "float16": 2.0**-10}
NAMES = ("param", "grad", "square_avg", "momentum_buffer", "grad_avg")


def drawn(rng, count, dtype):
    """A tensor's numbers as the dtype has them; the average of squares exceeds the square of the average."""
    values = {name: to_values(to_storage(rng.normal(size=count) * 0.1, dtype), dtype) for name in NAMES}
    values["square_avg"] = to_values(to_storage(values["grad_avg"] ** 2 + rng.uniform(0.1, 1, count), dtype), dtype)
    return values


def oracle(values, dtype, step, factor=1.0):
    """The formula. Bounds are rounded to the dtype."""
    (lr, alpha, eps, decay, momentum, sign, low, high), centered = step
    low, high = (to_values(to_storage(np.array([bound]), dtype), dtype)[0] for bound in (low, high))
    new = dict(values)
    g = values["grad"] * sign * factor + decay * values["param"]
    v = new["square_avg"] = alpha * values["square_avg"] + (1 - alpha) * g * g
    spread = v
    if centered:
        new["grad_avg"] = alpha * values["grad_avg"] + (1 - alpha) * g
        spread = v - new["grad_avg"] ** 2
    update = g / (np.sqrt(spread) + eps)
    if momentum:
        update = new["momentum_buffer"] = momentum * values["momentum_buffer"] + update
    new["param"] = np.clip(values["param"] - lr * update, low, high)
    return new, low, high


def hold(values, dtype, step, shift):
    """Guarded arrays of the numbers; those that the step has no use for are None."""
    numbers, centered = step
    used = dict.fromkeys(NAMES, True) | {"momentum_buffer": numbers[4] != 0, "grad_avg": centered}
    held = {}
    for name in NAMES:
        if used[name]:
            stored = to_storage(values[name], dtype)
            held[name] = Output(stored.shape, stored.dtype, shift)
            held[name].array[...] = stored
    return held


def stepped(module, run, tensors, step, arrays=(None, None, None), stats=None, clip_alone=False):
    """tensors: (dtype, values, shift) each. What is in the arrays after the call, and the counts of steps."""
    held = [hold(values, dtype, step, shift) for dtype, values, shift in tensors]
    steps = [np.full(1, 3, (np.float32, np.float64)[t % 2]) for t in range(len(tensors))]
    given = []
    for (dtype, _, _), each, count in zip(tensors, held, steps):
        others = [each[name].array if name in each else None for name in NAMES]
        given.append((dtype, others[0], *([None] * 5 if clip_alone else [*others[1:], count])))
    module.rmsprop_clip(run, given, list(step[0]), list(arrays), stats)
    return [{name: output.written().copy() for name, output in each.items()} for each in held], steps


def assert_stepped(got, values, dtype, step, factor=1.0, what=""):
    new, low, high = oracle(values, dtype, step, factor)
    for name, stored in got.items():
        actual = to_values(stored, dtype)
        if name == "grad":
            assert_same_bits(stored, to_storage(values["grad"], dtype), "the gradient was written")
        elif actual.size:
            allowed = ROUNDINGS[dtype] * EPS[dtype] * max(np.abs(new[name]).max(), 2e-2)
            error = np.abs(actual - new[name]).max()
            assert error <= allowed, f"{what} {name}: off by {error}, allowed {allowed}"
    weights = to_values(got["param"], dtype)
    assert ((weights >= low) & (weights <= high)).all()


def check(module, run, sizes, step, shifts=(0,)):
    rng = np.random.default_rng(50)
    tensors = [
        (dtype, drawn(rng, size, dtype), shift)
        for size, dtype in sizes
        for shift in shifts
    ]  # fmt: skip
    got, counts = stepped(module, run, tensors, step)
    for each, (dtype, values, shift) in zip(got, tensors):
        assert_stepped(each, values, dtype, step, what=f"{dtype}, {values['param'].size} at {shift}")
    assert all(count == 4 for count in counts)
    return got


@pytest.mark.parametrize("name", STEPS)
def test_every_dtype_and_tail(core, isa, name):
    lengths = [*range(0, 40, 7 if QUICK else 1), 63, 64, 65, 200]
    for run in runs(core, isa):
        check(core, run, [(length, dtype) for length in lengths for dtype in DTYPES], STEPS[name], (0, 1))


def test_many_small_tensors_and_a_large_one(core, isa):
    sizes = [(size % 90, DTYPES[size % 4]) for size in range(100 if QUICK else 600)]
    sizes.insert(len(sizes) // 2, (100_003, "float32"))
    first, *others = [check(core, run, sizes, STEPS["all"]) for run in runs(core, isa)]
    for other in others:
        for one, another in zip(first, other):
            for name in one:
                assert_same_bits(one[name], another[name], "another number of threads")


def numbers_on_device(wide):
    dtype = np.float64 if wide else np.float32
    return [np.array([0.02], dtype), np.array([8.0], dtype), np.array([0.0], dtype)]


def check_numbers_on_device(module, run, count=301):
    """lr, scale and found_inf as arrays, of either width; and no write where an infinity was found."""
    rng = np.random.default_rng(51)
    for dtype in DTYPES:
        values = drawn(rng, count, dtype)
        for wide in (False, True):
            arrays = numbers_on_device(wide)
            (got,), _ = stepped(module, run, [(dtype, values, 0)], STEPS["all"], arrays)
            numbers, centered = STEPS["all"]
            lr = float(arrays[0][0])
            assert_stepped(got, values, dtype, ((lr, *numbers[1:]), centered), 1 / 8)
            arrays[2][0] = 1
            stats = np.zeros(2, np.int64)
            (got,), counts = stepped(module, run, [(dtype, values, 0)], STEPS["all"], arrays, stats)
            for name, stored in got.items():
                assert_same_bits(stored, to_storage(values[name], dtype), f"{name} was written")
            assert counts[0] == 3 and stats.tolist() == [0, 0]


def check_stats(module, run, size=5000):
    rng = np.random.default_rng(52)
    tensors = [(dtype, drawn(rng, count, dtype), 0) for dtype in DTYPES for count in (0, 1, 37, size)]
    for clip_alone in (False, True):
        stats = np.array([7, 0], np.int64)
        step = ((*STEPS["plain"][0][:6], -0.05, 0.1), False)
        got, counts = stepped(module, run, tensors, step, stats=stats, clip_alone=clip_alone)
        at_bound, largest = 7, 0.0
        for (dtype, values, _), each in zip(tensors, got):
            weights = to_values(each["param"], dtype)
            low, high = (to_values(to_storage(np.array([bound]), dtype), dtype)[0] for bound in (-0.05, 0.1))
            at_bound += ((weights == low) | (weights == high)).sum()
            largest = max(largest, np.abs(weights).max(initial=0))
            if clip_alone:
                assert_same_bits(each["param"], to_storage(np.clip(values["param"], low, high), dtype))
        assert stats[0] == at_bound > 100 and stats[1:].view(np.float64)[0] == largest
        assert all(count == (3 if clip_alone else 4) for count in counts)
    loose, positive = (((*STEPS["plain"][0][:6], low, 1), False) for low in (-1, 0))
    for place_of_it in range(1, 130, 21):
        values = {name: np.full(130, 0.25) for name in NAMES}
        values["param"][place_of_it] = -0.5
        counted = np.zeros(2, np.int64)
        stepped(module, run, [("float32", values, 0)], loose, stats=counted, clip_alone=True)
        assert counted[0] == 0 and counted[1:].view(np.float64)[0] == 0.5
        stepped(module, run, [("float32", values, 0)], positive, stats=counted, clip_alone=True)
        assert counted[0] == 1, "a bound of 0: the zeros past the end are nobody's numbers"
    tensors[3][1]["param"][size // 2] = np.nan
    stepped(module, run, tensors, step, stats=stats, clip_alone=True)
    assert np.isnan(stats[1:].view(np.float64)[0])


def test_numbers_on_device(core, isa):
    check_numbers_on_device(core, core.Run(isa, 2))


def test_stats(core, isa):
    for run in runs(core, isa):
        check_stats(core, run, 60_000 if run is not None and not QUICK else 5000)


def test_nan_stays_and_zero_over_zero_is_nan_only_where_it_is(core, isa):
    """The lanes past the end, which hold zeros, are nobody's numbers."""
    step = ((0.1, 0.5, 0.0, 0, 0, 1, -1, 1), False)
    values = {name: np.ones(5) for name in NAMES}
    values["grad"][3] = np.nan
    stats = np.zeros(2, np.int64)
    (got,), _ = stepped(core, core.Run(isa, 1), [("float32", values, 0)], step, stats=stats)
    assert np.isnan(got["param"]).tolist() == [False, False, False, True, False]
    values["grad"][3] = 1.0
    (got,), _ = stepped(core, core.Run(isa, 1), [("float32", values, 0)], step, stats=stats[:] * 0)
    stats[:] = 0
    stepped(core, core.Run(isa, 1), [("float32", values, 0)], step, stats=stats)
    assert np.isfinite(stats[1:].view(np.float64)).all()


def test_nothing(core, isa):
    core.rmsprop_clip(core.Run(isa, 2), [], list(STEPS["plain"][0]), [None] * 3, None)


def test_memory_that_must_not_be_read(core, isa):
    """What lies past the last element belongs to others: AddressSanitizer sees a read of it."""
    for dtype in DTYPES:
        arrays = [place(np.ones(13), dtype) for _ in range(5)]
        core.rmsprop_clip(core.Run(isa, 1), [(dtype, *arrays, None)], list(STEPS["all"][0]), [None] * 3, None)
