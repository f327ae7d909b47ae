"""mlp_critic_loss: every result against the formula in float64."""

import pytest
from core_arrays import QUICK, assert_same_bits, for_any_threads
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

# Batches around one and two vectors of samples, and the block of terms that is summed in registers, 512.
BATCHES = (1, 3, 8, 16, 17, 31, 32, 33, 64, 65, 100)
# Features around the block of rows (6 and 8) and the vectors of 2 to 16; input first, scores last.
SIZES = [(1, 1), (5, 3), (1, 7, 1), (9, 6, 8, 2), (16, 17, 5, 13, 1), (33, 8, 64, 15, 31, 1), (7, 32, 1, 40, 1)]


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_result(core, isa, dtype):
    for critic, setting, shift, message in cases(dtype, BATCHES[::3] if QUICK else BATCHES, SIZES):
        results = for_any_threads(core, isa, lambda run: critic.run(core, run, setting, shift=shift))  # noqa: B023
        assert_right(critic, results, setting, message)
        alone = critic.run(core, core.Run(isa), setting, needs_grads=False)
        for actual, expected in zip(alone, results):
            assert_same_bits(actual, expected, f"without gradients, {message}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_long_sums(core, isa, dtype):
    for B, layers in LONG[:1] if QUICK else LONG:
        critic = Critic(B, layers, dtype, [0.2] * (len(layers) - 2) + [1.0])
        results = for_any_threads(core, isa, lambda run: critic.run(core, run, SETTINGS[0]))  # noqa: B023
        assert_right(critic, results, SETTINGS[0], f"B {B}, {layers}")


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_sample_alone_is_the_sample_in_a_batch(core, isa, dtype):
    check_samples_alone(core, core.Run(isa), dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("setting", SETTINGS)
def test_at_zero_gradient(core, isa, dtype, setting):
    check_zero_gradients(core, core.Run(isa), dtype, setting)


def test_no_samples_no_features_no_units(core, isa):
    check_nothing(core, core.Run(isa))
