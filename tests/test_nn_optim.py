"""The modules and optimisers over the functions."""

from __future__ import annotations

import copy
import io
import pickle
from typing import Any

import pytest
import torch
from cases import assert_same_bits, samples
from tolerances import assert_as_good_as_torch
from torch import Tensor, nn

import wgan_kernels as wk
from wgan_kernels.nn import GradientPenalty, MMDLoss
from wgan_kernels.optim import ClippedRMSprop


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))


def train(critic: nn.Module, optimiser: Any, steps: int = 5, after: Any = lambda: None) -> list[Tensor]:
    for step in range(steps):
        optimiser.zero_grad()
        x = samples((6, 4), torch.float32, seed=step).to(next(critic.parameters()).dtype)
        critic(x).square().mean().backward()
        optimiser.step()
        after()
    return [param.detach().clone() for param in critic.parameters()]


SETTINGS = [
    {},
    {"lr": 0.05, "momentum": 0.9},
    {"lr": 0.05, "centered": True, "alpha": 0.9, "eps": 1e-6},
    {"lr": 0.05, "weight_decay": 0.1, "foreach": False},
    {"lr": 0.05, "maximize": True},
]


def clamped_rmsprop(critic: nn.Module, settings: dict[str, Any]) -> list[Tensor]:
    def clamp() -> None:
        with torch.no_grad():
            for param in critic.parameters():
                param.clamp_(-0.05, 0.05)

    optimiser = torch.optim.RMSprop(critic.parameters(), **{"lr": 5e-5, **settings})
    return train(critic, optimiser, after=clamp)


@pytest.mark.parametrize("settings", SETTINGS)
def test_clipped_rmsprop_is_rmsprop_and_then_clamp(backend: str, settings: dict[str, Any]) -> None:
    ours = network()
    result = train(ours, ClippedRMSprop(ours.parameters(), clip=0.05, **settings))
    plain, exact = clamped_rmsprop(network(), settings), clamped_rmsprop(network().double(), settings)
    for param, theirs, expected in zip(result, plain, exact, strict=True):
        assert_as_good_as_torch(param, theirs, expected)
        if backend == "reference":
            assert_same_bits(param, theirs)
    assert max(param.abs().max().item() for param in result) == pytest.approx(0.05)


def test_the_defaults_are_those_of_the_paper(backend: str) -> None:
    critic = network()
    optimiser = ClippedRMSprop(critic.parameters())
    assert optimiser.param_groups[0]["lr"] == 5e-5 and optimiser.param_groups[0]["clip"] == 0.01
    train(critic, optimiser, steps=1)
    assert max(param.abs().max().item() for param in critic.parameters()) <= 0.0100001
    assert isinstance(optimiser, torch.optim.Optimizer)


def test_groups_with_their_own_bound(backend: str) -> None:
    critic, extra = network(), nn.Parameter(torch.ones(3))
    groups = [{"params": critic[0].parameters(), "clip": 0.2}, {"params": critic[2].parameters()}]
    optimiser = ClippedRMSprop(groups, clip=0.03)
    optimiser.add_param_group({"params": [extra]})
    train(critic, optimiser, steps=1)  # extra has no gradient, and is a weight of the critic all the same
    largest = [max(p.abs().max().item() for p in group["params"]) for group in optimiser.param_groups]
    assert largest == [pytest.approx(0.2), pytest.approx(0.03), pytest.approx(0.03)]


def test_weights_saved_before_the_step_are_known_to_have_changed(backend: str) -> None:
    critic = network()
    optimiser = ClippedRMSprop(critic.parameters(), lr=0.0)
    loss = (critic[2].weight ** 2).sum()
    optimiser.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_state_survives_saving(backend: str) -> None:
    def continued(reload: bool) -> list[Tensor]:
        critic = network()
        optimiser = ClippedRMSprop(critic.parameters(), lr=0.01, clip=0.2, momentum=0.5)
        train(critic, optimiser, steps=2)
        if reload:
            file = io.BytesIO()
            torch.save({"critic": critic.state_dict(), "optimiser": optimiser.state_dict()}, file)
            file.seek(0)
            saved = torch.load(file)
            critic = network(seed=1)
            optimiser = ClippedRMSprop(critic.parameters())
            critic.load_state_dict(saved["critic"])
            optimiser.load_state_dict(saved["optimiser"])
            assert optimiser.param_groups[0]["clip"] == 0.2
        return train(critic, optimiser)

    for one, other in zip(continued(True), continued(False), strict=True):
        assert_same_bits(one, other)


def test_a_copy_goes_its_own_way(backend: str) -> None:
    critic = network()
    pair = copy.deepcopy({"critic": critic, "optimiser": ClippedRMSprop(critic.parameters(), lr=0.01, clip=0.1)})
    before = critic[0].weight.detach().clone()
    train(pair["critic"], pair["optimiser"], steps=1)
    assert torch.equal(critic[0].weight, before) and pair["critic"][0].weight.abs().max() <= 0.1000001


@pytest.mark.parametrize("rmsprop_came_first", [False, True])
def test_hooks_run_once_and_see_clipped_weights(backend: str, rmsprop_came_first: bool) -> None:
    if rmsprop_came_first:  # which wraps torch's own step with the hooks
        torch.optim.RMSprop(network().parameters())
    critic = network()
    optimiser = ClippedRMSprop(critic.parameters(), lr=0.01)
    calls = []
    optimiser.register_step_pre_hook(lambda *_: calls.append("before"))
    optimiser.register_step_post_hook(lambda *_: calls.append(critic[0].weight.abs().max().item() <= 0.0100001))
    critic(torch.ones(2, 4)).sum().backward()
    optimiser.step()
    assert calls == ["before", True]


def test_closures_and_schedules(backend: str) -> None:
    critic = network()
    optimiser = ClippedRMSprop(critic.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.StepLR(optimiser, 1, gamma=0.5)

    def closure() -> Tensor:
        optimiser.zero_grad()
        loss = critic(torch.ones(2, 4)).square().sum()
        loss.backward()
        return loss

    assert optimiser.step(closure).item() > 0
    schedule.step()
    assert optimiser.param_groups[0]["lr"] == 0.05
    assert critic[0].weight.grad is not None and critic[0].weight.abs().max() <= 0.0100001


@pytest.mark.parametrize(
    ("clip", "error"),
    [(0.0, ValueError), (-1.0, ValueError), (torch.nan, ValueError), ("a", TypeError), (torch.tensor(0.1), TypeError)],
)
def test_a_wrong_bound_is_refused_when_the_optimiser_is_made(clip: Any, error: type[Exception]) -> None:
    params = list(network().parameters())
    with pytest.raises(error, match="clip"):
        ClippedRMSprop(params, clip=clip)
    with pytest.raises(error, match="clip"):
        ClippedRMSprop([{"params": params, "clip": clip}])
    with pytest.raises(error, match="clip"):
        ClippedRMSprop(params[:2]).add_param_group({"params": params[2:], "clip": clip})


def test_gradient_penalty_module_is_the_function_with_its_settings(backend: str) -> None:
    critic, real, fake = network(), samples((6, 4), torch.float32, seed=1), samples((6, 4), torch.float32, seed=2)
    settings = {"weight": 3.0, "target": 0.5, "one_sided": True, "reduction": "none"}
    module = GradientPenalty(**settings)
    mix = torch.rand(6)
    assert_same_bits(module(critic, real, fake, mix=mix), wk.gradient_penalty(critic, real, fake, mix=mix, **settings))
    ours = module(critic, real, fake, mix=mix, weight=1.0, return_norms=True)
    expected = wk.gradient_penalty(critic, real, fake, mix=mix, **{**settings, "weight": 1.0}, return_norms=True)
    for a, b in zip(ours, expected, strict=True):
        assert_same_bits(a, b)
    assert module.settings == settings, "a call's settings stayed"
    assert repr(module) == "GradientPenalty(weight=3.0, target=0.5, one_sided=True, reduction='none')"
    module(critic, real, fake).sum().backward()
    assert critic[0].weight.grad is not None


def test_modules_are_modules(backend: str) -> None:
    loss = nn.ModuleDict({"penalty": GradientPenalty(weight=2.0), "mmd": MMDLoss(wk.kernels.RBF(1.5))})
    assert list(loss.parameters()) == [] and loss.state_dict() == {}
    critic, x = network(), samples((6, 4), torch.float32, seed=1)
    for other in (copy.deepcopy(loss), pickle.loads(pickle.dumps(loss)), loss.eval().double()):
        assert repr(other) == repr(loss)
        assert_same_bits(
            other["penalty"](critic, x, x, points="real").detach(),
            wk.gradient_penalty(critic, x, x, points="real", weight=2.0).detach(),
        )


def test_mmd_module_is_the_function_with_its_settings() -> None:
    x, y = samples((7, 3), torch.float32, seed=1), samples((5, 3), torch.float32, seed=2)
    kernel = wk.kernels.RBF(1.5)
    for estimator in ("unbiased", "biased"):
        module = MMDLoss(kernel, estimator=estimator)
        assert_same_bits(module(x, y), wk.mmd2(x, y, kernel, estimator=estimator))
        assert estimator in repr(module) and "RBF" in repr(module)
    assert_same_bits(MMDLoss(kernel)(x, y), wk.mmd2(x, y, kernel))
    in_blocks, weights = MMDLoss(kernel, estimator="block", block_size=2), torch.arange(1.0, 8.0)
    assert_same_bits(in_blocks(x, y), wk.mmd2(x, y, kernel, estimator="block", block_size=2))
    assert "block_size=2" in repr(in_blocks)
    assert_same_bits(MMDLoss(kernel)(x, y, x_weights=weights), wk.mmd2(x, y, kernel, x_weights=weights))


@pytest.mark.parametrize("make", [lambda: GradientPenalty(wieght=10.0), lambda: GradientPenalty(weight="much")])
def test_wrong_settings_are_refused(make: Any) -> None:
    x = torch.ones(2, 4)
    with pytest.raises(TypeError, match="weight|wieght"):
        make()(network(), x, x)


def test_the_state_of_a_plain_rmsprop_can_be_taken_over() -> None:
    params = list(network().parameters())
    plain = torch.optim.RMSprop(params, lr=0.1)
    params[0].grad = torch.ones_like(params[0])
    plain.step()
    clipped = ClippedRMSprop(params, clip=0.02)
    clipped.load_state_dict(plain.state_dict())
    clipped.step()
    assert clipped.param_groups[0]["lr"] == 0.1
    assert all(param.abs().max() <= 0.02 for param in params)
