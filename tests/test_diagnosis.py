"""check_critic: names what breaks a gradient penalty, and nothing else."""

from __future__ import annotations

import pytest
import torch
from cases import assert_same_error, samples
from critics import Attending, OwnAttention
from torch import nn

from wgan_kernels import check_critic

X = samples((4, 6), torch.float32)


def mlp(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 5), *layers)


@pytest.mark.parametrize(
    ("critic", "layer", "problem", "instead"),
    [
        (mlp(nn.BatchNorm1d(5), nn.Linear(5, 1)), "1", "BatchNorm1d in training mode", "GroupNorm"),
        (mlp(nn.BatchNorm1d(5, track_running_stats=False).eval(), nn.Linear(5, 1)), "1", "BatchNorm1d", "LayerNorm"),
        (mlp(nn.Linear(5, 1), nn.Sigmoid()), "2", "Sigmoid bounds", "linear"),
        (Attending(), "attention", "second derivative", "sdpa_kernel"),
        (OwnAttention(), "", "second derivative", "sdpa_kernel"),
        (lambda x: (x * x.mean(0)).sum(1), "", "other samples", "pac="),
        (lambda x: torch.cdist(x.unsqueeze(1), x.unsqueeze(1) ** 2).sum((1, 2)), "", "no second derivative", "twice"),
        (lambda x: torch.ones(4), "", "do not depend", "do"),
    ],
)
def test_findings(critic: nn.Module, layer: str, problem: str, instead: str) -> None:
    state = torch.get_rng_state()
    (finding,) = check_critic(critic, X)
    assert finding.layer == layer and problem in finding.problem and instead in finding.instead
    assert torch.equal(state, torch.get_rng_state())
    if isinstance(critic, nn.Module):
        assert all(param.grad is None for param in critic.parameters())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in critic.modules())


def test_synchronised_batch_norm_is_named_before_it_runs() -> None:
    critic = mlp(nn.SyncBatchNorm(5).eval(), nn.Linear(5, 1))
    assert [finding.layer for finding in check_critic(critic, X)] == ["1"]


@pytest.mark.parametrize(
    "critic",
    [
        mlp(nn.LayerNorm(5), nn.LeakyReLU(0.2), nn.Dropout(), nn.Linear(5, 1)),
        mlp(nn.BatchNorm1d(5).eval(), nn.Tanh(), nn.Linear(5, 1)),
        lambda x: x.square().sum(1),
    ],
)
def test_nothing_is_wrong(critic: nn.Module) -> None:
    with torch.no_grad():
        assert check_critic(critic, X) == []


def test_groups_that_a_critic_judges_together() -> None:
    first = nn.Linear(2 * X.shape[1], 1)
    assert check_critic(lambda x: first(x.reshape(-1, 2 * x.shape[1])), X, pac=2) == []
    (finding,) = check_critic(lambda x: first((x * x.mean(0)).reshape(-1, 2 * x.shape[1])), X, pac=2)
    assert "other samples" in finding.problem
    assert_same_error(lambda: check_critic(first, X[:2], pac=2), ValueError, "sample", "two groups of pac=2", "2")
    assert_same_error(lambda: check_critic(first, X[:3], pac=2), ValueError, "sample", "multiple of pac=2", "3")


def test_bad_arguments() -> None:
    assert_same_error(lambda: check_critic(3, X), TypeError, "critic", "int")
    assert_same_error(lambda: check_critic(mlp(), X.long()), TypeError, "sample", "int64")
    assert_same_error(lambda: check_critic(mlp(), X[:1]), ValueError, "sample", "two samples", "1")
