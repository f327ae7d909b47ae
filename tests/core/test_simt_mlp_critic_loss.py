"""mlp_critic_loss in CUDA, run by the CPU: every result against the formula in float64."""

import numpy as np
import pytest
from core_arrays import QUICK, assert_same_bits, for_any_order, many_threads
from mlp_critics import (
    DTYPES,
    LONG,
    SETTINGS,
    Critic,
    assert_right,
    cases,
    check_nothing,
    check_samples_alone,
    check_zero_gradients,
)

# Around one group of 4 samples and more, and the 16 samples that are added up at a time.
BATCHES = (1, 3, 4, 5, 8, 15, 16, 17)
# Features around the 8 rows of a warp, the 64 of a block and the 32 columns of a tile; in whole packs of 16 bytes
# (where arrays begin at one) and not.
SIZES = [(1, 1), (5, 3), (4, 8, 1), (9, 7, 2), (32, 64, 12, 4, 1), (33, 65, 8, 1), (31, 63, 16, 32, 2)]
# Around the columns that a warp, and a block, takes of a layer at a time: 64 and 128, or 128 and 256.
COLUMNS = (60, 64, 65, 124, 128, 129, 132, 255, 256, 257, 260, 516)
# Too wide for shared memory.
WIDE = {"float64": 1300, "float32": 2600}


def check(simt, critic, setting, message, shift=0):
    results = for_any_order(simt, lambda run: critic.run(simt, run, setting, shift=shift))
    assert_right(critic, results, setting, message)
    return results


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_result(simt, dtype):
    for critic, setting, shift, message in cases(dtype, BATCHES[1::4] if QUICK else BATCHES, SIZES):
        results = check(simt, critic, setting, message, shift)
        alone = critic.run(simt, simt.Run(), setting, needs_grads=False)
        for actual, expected in zip(alone, results):
            assert_same_bits(actual, expected, f"without gradients, {message}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_whole_packs(simt, dtype):
    """Arrays that begin at 16 bytes, with rows of whole packs of them; and the same bits where they begin elsewhere."""
    for B, sizes in ((3, (8, 12, 4)), (6, (132, 68, 20, 1)))[QUICK:]:
        slopes = [0.2] * (len(sizes) - 2) + [1.0]
        results = check(simt, Critic(B, sizes, dtype, slopes), SETTINGS[0], f"B {B}, {sizes}")
        moved = Critic(B, sizes, dtype, slopes, shift=1).run(simt, simt.Run(), SETTINGS[0], shift=1)
        for actual, expected in zip(moved, results, strict=True):
            assert_same_bits(actual, expected, "arrays that begin elsewhere")


@pytest.mark.parametrize("dtype", DTYPES)
def test_columns_of_a_block(simt, dtype):
    for columns in COLUMNS[4::6] if QUICK else COLUMNS:
        for sizes in ((columns, 3, 1), (3, columns, 17, 1)):
            critic = Critic(2, sizes, dtype, [0.0, 0.2, 1.0][-len(sizes) + 1 :], judged=columns % 2 == 0)
            check(simt, critic, SETTINGS[columns % 4], f"{sizes}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums(simt, dtype):
    for B, layers in LONG[1:2] if QUICK else LONG:
        critic = Critic(B, layers, dtype, [0.2] * (len(layers) - 2) + [1.0])
        check(simt, critic, SETTINGS[0], f"B {B}, {layers}")


@many_threads
@pytest.mark.parametrize("dtype", DTYPES)
def test_groups_of_eight(simt, dtype):
    """Batches of so many samples that groups are wide, and of just not as many; and a group that is not full."""
    for B in (173,) if QUICK else (168, 169, 176, 177):
        critic = Critic(B, (9, 20, 6, 1), dtype, [0.2, 0.0, 1.0])
        check(simt, critic, SETTINGS[0], f"B {B}")


@many_threads
@pytest.mark.parametrize("dtype", DTYPES)
def test_panels_too_wide_for_shared_memory(simt, dtype):
    for B, judged in ((9, False),) if QUICK else ((1, True), (9, True)):
        critic = Critic(B, (3, WIDE[dtype], 4, 1), dtype, [1.0, 0.2, 1.0], judged=judged)
        check(simt, critic, SETTINGS[1], f"B {B}")
        critic = Critic(1, (WIDE[dtype], 5, 1), dtype, [0.2, 1.0], judged=judged)
        check(simt, critic, SETTINGS[0], f"B {B}")
    critic = Critic(2, (2, WIDE[dtype], 1), dtype, [0.2, 1.0], judged=False)
    check(simt, critic, SETTINGS[0], "masks in global memory")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_alone_is_the_sample_in_a_batch(simt, dtype):
    check_samples_alone(simt, simt.Run(), dtype, B=5 if QUICK else 40)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_at_zero_gradient(simt, dtype, setting):
    check_zero_gradients(simt, simt.Run(), dtype, setting)


def test_no_samples_no_features_no_units(simt):
    check_nothing(simt, simt.Run())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_stays_in_its_sample(simt, dtype, bad):
    critic = Critic(6, (5, 9, 1), dtype, [0.0, 1.0])
    _, _, fine = critic.run(simt, simt.Run(), SETTINGS[0], needs_grads=False)
    for x in critic.samples:
        x[2, 1] = bad
    penalty, wasserstein, norms, *_ = critic.run(simt, simt.Run(), SETTINGS[0])
    others = [0, 1, 3, 4, 5]
    assert_same_bits(norms[others], fine[others])
    assert not np.isfinite(wasserstein) and (np.isfinite(penalty) or np.isnan(bad))


def test_launches(simt):
    """Two, whatever there is to do: the sweeps, and the sums."""
    for B, sizes, judged, needs_grads in ((5, (3, 4, 1), True, True), (9, (2, 40, 70, 50, 1), False, False)):
        critic = Critic(B, sizes, "float32", [0.2] * (len(sizes) - 1), judged=judged)
        before = simt.launches()
        critic.run(simt, simt.Run(), SETTINGS[0], needs_grads)
        assert simt.launches() - before == 2


def test_as_many_layers_as_fit(simt):
    deep = [3] * 32 + [1]
    check(simt, Critic(2, deep, "float64", [0.5] * 32), SETTINGS[0], "32 layers")
    with pytest.raises(RuntimeError, match="status 1"):
        Critic(2, [3, *deep], "float64", [0.5] * 33).run(simt, simt.Run(), SETTINGS[0])
