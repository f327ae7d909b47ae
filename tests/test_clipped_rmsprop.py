"""ClippedRMSprop as an optimiser among torch's: state, groups, scaling, kinds of tensors."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest
import torch
from cases import assert_same_bits, samples
from test_nn_optim import network, train
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import wgan_kernels as wk
from wgan_kernels.optim import ClippedRMSprop


def filled(optimiser: Any) -> Any:
    """Every parameter with a gradient."""
    for group in optimiser.param_groups:
        for k, param in enumerate(group["params"]):
            param.grad = samples(tuple(param.shape), param.dtype, seed=k).to(param.device)
    return optimiser


def close(ours: Any, theirs: Any) -> None:
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("settings", [{}, {"momentum": 0.9, "centered": True, "lr": 0.01}])
def test_state_goes_to_rmsprop_and_back(backend: str, settings: dict[str, Any]) -> None:
    """Two steps of each in turns are four steps of either."""

    def steps(kinds: list[type]) -> list[Tensor]:
        critic, state = network().double(), None
        for kind in kinds:
            optimiser = kind(critic.parameters(), **settings, **({"clip": 1e3} if kind is ClippedRMSprop else {}))
            if state is not None:
                optimiser.load_state_dict(pickle.loads(pickle.dumps(state)))
            result = train(critic, optimiser, steps=2)
            state = optimiser.state_dict()
        assert {float(each["step"]) for each in state["state"].values()} == {2.0 * len(kinds)}
        return [*result, *(each[name] for each in state["state"].values() for name in sorted(each))]

    ours, theirs = ClippedRMSprop, torch.optim.RMSprop
    settings = {"lr": 5e-5, **settings}
    for mixed in ([ours, theirs], [theirs, ours], [ours, ours]):
        close(steps(mixed), steps([theirs, theirs]))


def test_every_parameter_has_a_counter_of_its_own(backend: str) -> None:
    optimiser = ClippedRMSprop(network().parameters())
    filled(optimiser).step()
    optimiser.param_groups[0]["params"][0].grad = None
    optimiser.step()
    assert [each["step"].item() for each in optimiser.state.values()] == [1.0, 2.0, 2.0, 2.0]
    assert all(each["step"].dtype == torch.float32 and each["step"].is_cpu for each in optimiser.state.values())


def test_settings_may_change_on_the_way(backend: str) -> None:
    optimiser = ClippedRMSprop(network().parameters(), lr=torch.tensor(0.01))
    filled(optimiser).step()
    optimiser.param_groups[0].update(momentum=0.5, centered=True)
    optimiser.param_groups[0]["lr"].fill_(0.02)
    optimiser.step()
    state = next(iter(optimiser.state.values()))
    assert set(state) == {"step", "square_avg", "momentum_buffer", "grad_avg"} and state["step"] == 2
    del state["grad_avg"]
    optimiser.param_groups[0]["momentum"] = 0
    optimiser.step()
    assert state["grad_avg"].abs().max() > 0 and state["step"] == 3


def test_a_group_may_go_without_a_clip(backend: str) -> None:
    free, bound, frozen = (nn.Parameter(torch.full((3,), 5.0)) for _ in range(3))
    groups = [{"params": [free], "clip": None}, {"params": [bound, frozen]}]
    optimiser = ClippedRMSprop(groups, lr=0.1, clip=0.1, record_stats=True)
    free.grad, bound.grad = torch.ones(3), torch.ones(3)
    optimiser.step()
    assert free.tolist() == [pytest.approx(4.0)] * 3 and bound.tolist() == frozen.tolist() == [pytest.approx(0.1)] * 3
    stats = optimiser.clip_stats()
    assert stats.at_bound.item() == 1.0 and stats.largest.item() == pytest.approx(0.1), "of the group with a clip"
    with pytest.raises(ValueError, match="clip"):
        optimiser.add_param_group({"params": [nn.Parameter(torch.ones(1))], "clip": 0.0})
    unclipped = ClippedRMSprop([nn.Parameter(torch.full((2,), 9.0))], clip=None)
    filled(unclipped).step()
    assert unclipped.param_groups[0]["params"][0].min() > 8


def test_stats_of_a_step(backend: str) -> None:
    critic = network()
    optimiser = ClippedRMSprop(critic.parameters(), lr=1e-4, clip=0.1)
    with pytest.raises(RuntimeError, match="record_stats"):
        optimiser.clip_stats()
    train(critic, optimiser, steps=1)
    with pytest.raises(RuntimeError, match="record_stats"):
        optimiser.clip_stats()
    optimiser.record_stats = True
    optimiser.add_param_group({"params": [nn.Parameter(torch.full((7,), 9.0))], "clip": 0.5})
    train(critic, optimiser, steps=2)
    stats = optimiser.clip_stats()
    flat = torch.cat([param.detach().abs().flatten() for param in critic.parameters()])
    assert stats.largest.item() == 0.5 and isinstance(stats, wk.ClipStats)
    assert stats.at_bound.item() == pytest.approx((flat.eq(flat.max()).sum().item() + 7) / (flat.numel() + 7))
    copied = copy.deepcopy(optimiser)
    with pytest.raises(RuntimeError, match="record_stats"):
        copied.clip_stats()


@pytest.mark.parametrize("kind", ["sparse", "complex"])
def test_what_cannot_be_stepped_is_refused_before_anything_is_written(backend: str, kind: str) -> None:
    good = nn.Parameter(torch.full((3,), 5.0))
    if kind == "sparse":
        bad, error = nn.Embedding(4, 3, sparse=True).weight, RuntimeError
        bad.grad = torch.sparse_coo_tensor([[1]], torch.ones(1, 3), (4, 3))
    else:
        bad, error = nn.Parameter(torch.ones(2, dtype=torch.complex64)), TypeError
        bad.grad = torch.ones(2, dtype=torch.complex64)
    optimiser = ClippedRMSprop([{"params": [good]}, {"params": [bad]}])
    good.grad = torch.ones(3)
    with pytest.raises(error, match=kind):
        optimiser.step()
    assert good.tolist() == [5.0] * 3 and good._version == 0


def test_settings_that_are_refused() -> None:
    params = list(network().parameters())
    with pytest.raises(ValueError, match="differentiable=True is refused: use torch"):
        ClippedRMSprop(params, differentiable=True)
    for name in ("lr", "eps", "momentum", "weight_decay", "alpha"):
        with pytest.raises(ValueError, match="Invalid"):
            ClippedRMSprop(params, **{name: -1.0})


def scaled_losses(optimiser: Any, critic: nn.Module, unscale: bool) -> list[float]:
    """Three steps with a scaler, whose second meets an infinity. Returns the scales after each."""
    scaler, scales = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=1), []
    for step in range(3):
        optimiser.zero_grad()
        factor = torch.inf if step == 1 else 1.0
        scaler.scale(critic(samples((6, 4), torch.float32, seed=step)).square().mean() * factor).backward()
        if unscale:
            scaler.unscale_(optimiser)
        scaler.step(optimiser)
        scaler.update()
        scales.append(scaler.get_scale())
    return scales


@pytest.mark.parametrize("unscale", [False, True])
def test_grad_scaler(backend: str, unscale: bool) -> None:
    ours, theirs = network(), network()
    optimiser = ClippedRMSprop(ours.parameters(), lr=0.01, clip=1e3, record_stats=True)
    plain = torch.optim.RMSprop(theirs.parameters(), lr=0.01)
    assert scaled_losses(optimiser, ours, unscale) == scaled_losses(plain, theirs, unscale) == [2048, 1024, 2048]
    close(ours.parameters(), theirs.parameters())
    for a, b in zip(optimiser.state.values(), plain.state.values(), strict=True):
        close([a[name] for name in sorted(a)], [b[name] for name in sorted(b)])
    assert not hasattr(optimiser, "grad_scale") and not hasattr(optimiser, "found_inf")


def test_a_scaled_step_without_any_gradient_clips(backend: str) -> None:
    param = nn.Parameter(torch.full((3,), 5.0))
    optimiser, scaler = ClippedRMSprop([param], clip=0.5), torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones((), requires_grad=True) * 2).backward()
    scaler.step(optimiser)
    assert param.tolist() == [0.5] * 3 and not optimiser.state


def test_a_shared_parameter_is_stepped_once(backend: str) -> None:
    shared, alone = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimiser = ClippedRMSprop([("a", shared), ("b", shared), ("c", alone)], lr=0.1, clip=10.0)
    filled(optimiser)
    shared.grad = alone.grad
    optimiser.step()
    assert_same_bits(shared.detach(), alone.detach())
    assert len(optimiser.param_groups[0]["params"]) == len(optimiser.param_groups[0]["param_names"]) == 2


def test_hooks_and_closures_are_torchs(backend: str) -> None:
    optimiser = ClippedRMSprop(network().parameters())
    seen: list[str] = []
    handle = register_optimizer_step_post_hook(lambda *_: seen.append("global"))
    optimiser.register_state_dict_post_hook(lambda *_: seen.append("state"))
    assert optimiser.step(lambda: torch.is_grad_enabled()) is True
    handle.remove()
    optimiser.state_dict()
    assert seen == ["global", "state"]


@pytest.mark.parametrize("capturable", [False, True])
def test_a_tensor_for_a_learning_rate_is_followed_by_schedules(backend: str, capturable: bool) -> None:
    results = []
    for lr in (torch.tensor(0.1), 0.1):
        critic = network()
        optimiser = ClippedRMSprop(critic.parameters(), lr=lr, momentum=0.5, clip=0.2, capturable=capturable)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimiser, 0.5)
        for _ in range(3):
            train(critic, optimiser, steps=1, after=schedule.step)
        results.append([param.detach() for param in critic.parameters()])
    close(*results)


def test_parameters_on_several_devices() -> None:
    here, there = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="meta"))
    optimiser = ClippedRMSprop([here, there], lr=0.1, record_stats=True)
    filled(optimiser).step()
    assert here.abs().max() <= 0.0100001 and optimiser.state[there]["square_avg"].is_meta


def test_the_local_parts_of_distributed_tensors(backend: str, mesh: Any) -> None:
    from torch.distributed.tensor import Replicate, Shard, distribute_tensor

    values, grad = samples((6, 4), torch.float32), samples((6, 4), torch.float32, seed=1)
    plain, spread = nn.Parameter(values.clone()), nn.Parameter(distribute_tensor(values, mesh, [Shard(0)]))
    for param in (plain, spread):
        optimiser = ClippedRMSprop([param], lr=0.1, clip=0.5, momentum=0.9, record_stats=True)
        for _ in range(2):
            whole = param is spread
            param.grad = distribute_tensor(grad, mesh, [Replicate()]) if whole else grad.clone()
            optimiser.step()
        assert param._version > 0 and optimiser.clip_stats().at_bound > 0
    assert type(optimiser.state[spread]["square_avg"]) is type(spread.data)
    assert_same_bits(spread.detach().to_local(), plain.detach())


def test_a_step_of_a_group_is_one_call(native: None) -> None:
    from test_weight_clip import Calls

    optimiser = filled(ClippedRMSprop(network().parameters(), momentum=0.9, centered=True))
    optimiser.step()
    with Calls() as seen:
        optimiser.step()
    assert [name for name, _ in seen.calls if "profiler" not in name] == ["wgan_kernels.rmsprop_clip_.default"]


def test_each_group_keeps_its_clip_where_the_loaded_state_has_none(backend: str) -> None:
    params = [nn.Parameter(torch.full((3,), 5.0)) for _ in range(2)]
    groups = [{"params": [params[0]], "clip": None}, {"params": [params[1]], "clip": 0.5}]
    ours = ClippedRMSprop(groups, lr=0.1)
    theirs = filled(torch.optim.RMSprop([{"params": [param]} for param in params], lr=0.1))
    theirs.step()
    state = theirs.state_dict()
    for of_param in state["state"].values():
        of_param["step"] = of_param["step"].to(torch.int64)
    ours.load_state_dict(state)
    assert [group["clip"] for group in ours.param_groups] == [None, 0.5]
    filled(ours).step()
    assert params[0].min() > 1 and params[1].max() <= 0.5
    assert [ours.state[param]["step"].item() for param in params] == [2, 2]


@pytest.mark.parametrize(
    ("setting", "error"),
    [({"clip": -0.2}, "clip"), ({"clip": torch.nan}, "clip"), ({"differentiable": True}, "differ")],
)
def test_what_a_loaded_state_may_not_set(setting: dict[str, Any], error: str) -> None:
    ours = ClippedRMSprop([nn.Parameter(torch.ones(3))], clip=0.1)
    state = ours.state_dict()
    state["param_groups"][0].update(setting)
    with pytest.raises(ValueError, match=error):
        ours.load_state_dict(state)
    assert ours.param_groups[0]["clip"] == 0.1 and not ours.param_groups[0]["differentiable"]


def test_parameters_that_share_memory_are_stepped_one_after_the_other(
    backend: str, one_and_two_threads: tuple[int, int]
) -> None:
    results = []
    for kind, threads in ((ClippedRMSprop, 1), (ClippedRMSprop, 2), (torch.optim.RMSprop, 1)):
        torch.set_num_threads(threads)
        memory = samples((300_000,), torch.float64, seed=1)
        params = [nn.Parameter(memory), nn.Parameter(memory), nn.Parameter(memory[:-10]), nn.Parameter(memory[10:])]
        optimiser = kind(params, lr=0.01, **({"clip": 1e3} if kind is ClippedRMSprop else {"foreach": False}))
        for _ in range(3):
            filled(optimiser).step()
        results.append(memory)
    assert_same_bits(results[0], results[1])
    torch.testing.assert_close(results[0], results[2], rtol=1e-12, atol=1e-12)


def test_statistics_are_those_of_the_last_step_or_none(backend: str) -> None:
    """Compiled, a step that is recorded runs as it is, or is refused where all has to be compiled."""
    param = nn.Parameter(torch.full((4,), 5.0))
    ours = filled(ClippedRMSprop([param], lr=0.0, clip=0.5, record_stats=True))
    ours.step()
    assert ours.clip_stats().at_bound == 1
    with torch.no_grad():
        param.fill_(0.25)
    with pytest.raises(Exception, match="record_stats must be False"):
        torch.compile(lambda: ours.step(), backend="aot_eager", fullgraph=True)()
    torch.compile(ours.step, backend="aot_eager")()
    assert ours.clip_stats().at_bound == 0 and ours.clip_stats().largest == 0.25
    ours.record_stats = False
    ours.step()
    with pytest.raises(RuntimeError, match="no step with a clip was recorded"):
        ours.clip_stats()


def test_a_complex_parameter_without_a_gradient_is_refused_before_anything_is_written(backend: str) -> None:
    real, strange = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, dtype=torch.complex64))
    ours = ClippedRMSprop([{"params": [real]}, {"params": [strange]}], clip=0.1)
    real.grad = torch.ones(3)
    with pytest.raises(TypeError, match="complex64"):
        ours.step()
    assert real.eq(1).all()


def test_statistics_that_the_operator_cannot_write_are_refused(native: None) -> None:
    param, rest = torch.ones(3), ([], [], [], [], [])
    for stats in (torch.zeros(2), torch.zeros(3, dtype=torch.int64), torch.zeros(4, dtype=torch.int64)[::2]):
        with pytest.raises(RuntimeError, match="stats must be two numbers"):
            torch.ops.wgan_kernels.rmsprop_clip_.default(
                *([param], *rest, stats, None, None, None), *(0.1, 0.9, 1e-8, 0.0, 0.0, False, -0.5, 0.5)
            )
