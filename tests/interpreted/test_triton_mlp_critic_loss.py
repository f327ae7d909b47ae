"""The Triton kernels of mlp_critic_loss: the CPU kernels' tests, on critics around the tiles of these."""

from __future__ import annotations

import itertools

import pytest
import test_mlp_critic_loss
import torch
from mlp_draws import DTYPES, SETTINGS, draw, flat
from test_mlp_critic_loss import (  # noqa: F401 - tests that run as they are
    assert_parity,
    test_a_layer_of_no_units,
    test_every_setting,
    test_layouts,
    test_nan_and_infinity_go_where_torch_has_them,
    test_no_samples,
    test_the_penalty_is_that_of_the_mixed_samples_alone,
    test_values_alone_are_the_values_with_gradients,
    test_zero_gradient,
)
from test_mlp_critic_loss_contract import test_compiled, test_it_is_not_differentiable  # noqa: F401

from wgan_kernels._triton import _layer_products as products
