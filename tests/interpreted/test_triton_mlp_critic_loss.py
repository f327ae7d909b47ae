"""The Triton kernels of mlp_critic_loss: the CPU kernels' tests, on critics around the tiles of these."""

from __future__ import annotations

import pytest
import test_mlp_critic_loss
import test_mlp_critic_loss_contract as contract
import torch
from mlp_draws import DTYPES, SETTINGS, draw
from test_mlp_critic_loss import (  # noqa: F401 - tests that run as they are
    assert_parity,
    test_a_layer_of_no_units,
    test_every_setting,
    test_layouts,
    test_nan_and_infinity_go_where_torch_has_them,
    test_no_samples,
    test_the_kinks_are_torchs,
    test_the_penalty_is_that_of_the_mixed_samples_alone,
    test_values_alone_are_the_values_with_gradients,
    test_zero_gradient,
)
from test_mlp_critic_loss_contract import test_compiled, test_it_is_not_differentiable, test_opcheck  # noqa: F401

from wgan_kernels._triton import _layer_products as products

# Rows, features and outputs around the tiles and steps; rows in several parts; one score and more.
CRITICS = [
    (1, (1, 1)),
    (11, (17, 33, 1)),
    (32, (16, 32, 31, 2)),
    (200, (5, 70, 3)),
]


@pytest.mark.parametrize("judged", [True, False])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_good_as_autograd(
    backend: str, dtype: torch.dtype, biased: bool, judged: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(test_mlp_critic_loss, "CRITICS", CRITICS)
    test_mlp_critic_loss.test_as_good_as_autograd(backend, dtype, biased, judged)


def test_large_tiles(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "PROGRAMS", 1)
    for judged in (True, False):
        assert_parity(draw(33, (65, 130, 64, 1), torch.float32, [0.2, 0.0, 1.0], judged=judged), SETTINGS[0], "large")


def test_slopes_beyond_those_of_modules(backend: str) -> None:
    """Negative ones, and steeper ones than 1."""
    assert_parity(draw(9, (6, 20, 9, 1), torch.float64, [-0.5, 1.5, 1.0]), SETTINGS[0], "slopes")


def test_the_operator_raises_in_backward(native: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contract, "operator", torch.ops.wgan_kernels.mlp_critic_loss_triton.default)
    contract.test_the_operator_raises_in_backward(native)
