"""The penalty without double backward: what it does to the critic, to autograd and to memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from critics import Call, closed_form
from eager import eager_penalty, parameter_gradients
from tolerances import EAGER_FLOAT64, assert_as_good_as_torch, largest
from torch import Tensor, nn
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torch.utils.checkpoint import checkpoint

from wgan_kernels.closed_form import NotCovered

DOUBLE = torch.float64


def fully_connected(*ends: nn.Module) -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.LeakyReLU(0.2), nn.Linear(7, 7), *ends, nn.Linear(7, 1)).double()


def points(batch: int = 6) -> Tensor:
    return torch.randn(batch, 5, dtype=DOUBLE)


def assert_same(critic: nn.Module, x: Tensor, score: Callable[[Tensor], Tensor] | None = None) -> None:
    """Now, with the critic as it is; from the same random state."""
    state = torch.get_rng_state()
    expected, _ = eager_penalty(score or critic, x)
    torch.set_rng_state(state)
    value, _ = closed_form(score or critic, x)
    assert abs((value - expected).item()) < EAGER_FLOAT64
    assert_gradients(parameter_gradients(value, critic), parameter_gradients(expected, critic))


def assert_gradients(ours: list[Tensor | None], expected: list[Tensor | None]) -> None:
    assert [grad is None for grad in ours] == [grad is None for grad in expected]
    for a, b in zip(ours, expected):
        assert a is None or largest(a - b) < EAGER_FLOAT64


def test_nothing_of_an_earlier_call_stays() -> None:
    critic, x = fully_connected(nn.BatchNorm1d(7), nn.Dropout(0.5)), points()
    assert_same(critic, x)
    critic[1].negative_slope = 0.7
    assert_same(critic, x)
    critic.eval()
    assert_same(critic, x)
    critic[2] = nn.Linear(7, 7, bias=False).double()
    assert_same(critic, points(3))


def test_a_branch_on_what_x_is() -> None:
    critic = fully_connected(nn.Tanh())

    def score(x: Tensor) -> Tensor:
        return critic(x) if x.dim() == 2 else critic(x.flatten(1)[:, :5] * 2)

    assert_same(critic, points(), score)
    assert_same(critic, torch.randn(6, 5, 2, dtype=DOUBLE), score)


def test_hooks_run_once() -> None:
    critic, seen = fully_connected(nn.SiLU()), []
    for layer in critic:
        layer.register_forward_hook(lambda *_: seen.append(1))
        layer.register_forward_pre_hook(lambda _, args: (args[0] * 1.5,))
    assert_same(critic, points())
    seen.clear()
    closed_form(critic, points())[0].backward()
    assert len(seen) == len(critic)


def test_parts_outside_the_graph() -> None:
    critic = fully_connected(nn.ReLU())

    def score(x: Tensor) -> Tensor:
        with torch.no_grad():
            scale = critic(x.detach()).sigmoid() + critic(x).square()
        return critic(x) * scale + critic(x.detach() * 2)

    assert_same(critic, points(), score)
    assert closed_form(lambda x: critic(x.detach()), points()) is None
    assert closed_form(lambda x: critic(torch.ones_like(x)), points()) is None


class Cube(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return functional.relu(x) ** 3

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 3 * functional.relu(x) ** 2 * grad


def test_functions_with_a_derivative_of_their_own() -> None:
    critic = fully_connected(Call(Cube.apply))
    assert_same(critic, points())


@pytest.mark.parametrize("reentrant", [False, True])
def test_activation_checkpointing(reentrant: bool) -> None:
    critic = fully_connected(nn.Dropout(0.3), nn.Tanh())

    def score(x: Tensor) -> Tensor:
        h = critic[:2](x)
        return critic[4:](checkpoint(critic[2:4], h, use_reentrant=reentrant))

    if reentrant:  # which cannot be differentiated twice, here or anywhere
        with pytest.raises(Exception, match=r"checkpoint|\.grad"):
            closed_form(score, points())
    else:
        assert_same(critic, points(), score)


@pytest.mark.parametrize(
    "meddle",
    [
        lambda h: h.register_hook(lambda grad: 2 * grad),
        lambda h: h.retain_grad(),
        lambda h: torch.autograd.grad(h.sum(), h),
        lambda h: h.sum().backward(),
        lambda h: torch.autograd.backward([h.sum()]),
    ],
    ids=["register_hook", "retain_grad", "autograd.grad", "backward", "autograd.backward"],
)
def test_critics_that_need_their_graph_are_refused(meddle: Callable[[Tensor], Any]) -> None:
    critic = fully_connected()

    def score(x: Tensor) -> Tensor:
        h = critic[:2](x)
        meddle(h)
        return critic[2:](h)

    with pytest.raises(NotCovered, match="it calls"):
        closed_form(score, points())


def test_a_value_written_over_is_seen() -> None:
    critic = fully_connected()

    def score(x: Tensor) -> Tensor:
        h = critic[0](x)
        a = critic[1](h)
        with torch.no_grad():
            h.zero_()
        return critic[2:](a)

    with pytest.raises(NotCovered, match="in place"):
        closed_form(score, points())


def test_what_torch_refuses_is_refused() -> None:
    for penalty in (closed_form, eager_penalty):
        with pytest.raises(RuntimeError, match="negative slope"):
            penalty(fully_connected(nn.LeakyReLU(-0.5, inplace=True)), points())


def test_what_the_critic_keeps_for_itself_has_no_gradient_outside() -> None:
    critic, kept = fully_connected(), []
    closed_form(lambda x: critic[2:](kept.append(critic[:2](x)) or kept[0]), points())
    with pytest.raises(RuntimeError, match="double_backward"):
        kept[0].sum().backward()


@pytest.mark.parametrize(
    "loss",
    [
        lambda penalty, critic, x: penalty**2,
        lambda penalty, critic, x: 65536.0 * penalty,
        lambda penalty, critic, x: critic(x).mean() + 3 * penalty + sum(p.square().sum() for p in critic.parameters()),
        lambda penalty, critic, x: (penalty * critic(x).mean()).exp(),
    ],
    ids=["square", "scaled", "a critic's loss", "product"],
)
def test_first_derivatives_of_losses(loss: Callable[..., Tensor]) -> None:
    critic, x = fully_connected(nn.Tanh()), points()
    ours, expected = (
        parameter_gradients(loss(f(critic, x)[0], critic, x), critic) for f in (closed_form, eager_penalty)
    )
    for a, b in zip(ours, expected):
        assert a is b is None or largest(a - b) < EAGER_FLOAT64 * max(1, largest(b))


@pytest.mark.parametrize(
    "loss",
    [
        lambda penalty, param: penalty,
        lambda penalty, param: penalty + param.square().sum(),
        lambda penalty, param: penalty**2,
        lambda penalty, param: penalty * param.sum(),
    ],
    ids=["alone", "sum", "square", "product"],
)
def test_second_derivatives_raise(loss: Callable[[Tensor, Tensor], Tensor]) -> None:
    critic = fully_connected(nn.Tanh())
    param = critic[0].weight
    (first,) = torch.autograd.grad(loss(closed_form(critic, points())[0], param), param, create_graph=True)
    with pytest.raises(NotImplementedError, match="first derivative only"):
        torch.autograd.grad(first.square().sum(), param)


def test_without_parameters_only_the_value_is_computed() -> None:
    critic, x = fully_connected(nn.Tanh()), points()
    expected = eager_penalty(critic, x)
    critic.requires_grad_(False)
    value, norms = closed_form(critic, x)
    assert not value.requires_grad and largest(value - expected[0].detach()) < EAGER_FLOAT64
    assert largest(norms - expected[1]) < EAGER_FLOAT64


def test_backward_twice_and_in_pieces() -> None:
    critic, x = fully_connected(nn.ReLU()), points()
    value, _ = closed_form(critic, x)
    first, again = (torch.autograd.grad(value, critic[0].weight, retain_graph=True)[0] for _ in range(2))
    assert torch.equal(first, again) and first.data_ptr() != again.data_ptr()
    value.backward()
    closed_form(critic, x)[0].backward()  # adds up
    assert largest(critic[0].weight.grad - 2 * first) < EAGER_FLOAT64


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("middle", [nn.LeakyReLU, nn.SiLU, lambda: nn.GroupNorm(2, 4), nn.PReLU])
def test_autocast(dtype: torch.dtype, middle: Callable[[], nn.Module]) -> None:
    critic = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Conv2d(4, 4, 3), middle(), nn.Flatten(), nn.Linear(64, 1)
    )
    x = torch.randn(6, 3, 8, 8)
    results = []
    for penalty, precision in ((closed_form, dtype), (eager_penalty, dtype), (eager_penalty, None)):
        critic = critic.double() if precision is None else critic
        with torch.autocast("cpu", precision) if precision else contextlib.nullcontext():
            loss = penalty(critic, x if precision else x.double())[0] + critic(x if precision else x.double()).mean()
        results.append(torch.cat([grad.flatten() for grad in parameter_gradients(loss, critic)]))
    assert_as_good_as_torch(*results)


def allocated_at_most(call: Callable[[], Any]) -> int:
    """The most bytes that were allocated at one time during the second call."""
    call()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as trace:
        call()
    events = sorted((e for e in trace.profiler.kineto_results.events() if e.name() == "[memory]"), key=start_of)
    total = most = 0
    for event in events:
        total += event.nbytes()
        most = max(most, total)
    return most


def start_of(event: Any) -> int:
    return event.start_ns()


@pytest.mark.parametrize(
    ("norm", "in_place", "bar"),
    [(False, False, 0.65), (False, True, 0.65), (True, False, 0.8)],
    ids=["piecewise linear", "piecewise linear, in place", "group norm"],
)
def test_memory(norm: bool, in_place: bool, bar: float) -> None:
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 4, 2, 1), nn.LeakyReLU(0.2, in_place)]
    for channels in (16, 32):
        layers += [nn.Conv2d(channels, 2 * channels, 4, 2, 1), *([nn.GroupNorm(1, 2 * channels)] if norm else [])]
        layers += [nn.LeakyReLU(0.2, in_place)]
    critic = nn.Sequential(*layers, nn.Conv2d(64, 1, 4), nn.Flatten())
    x = torch.randn(64, 3, 32, 32)
    penalties = (closed_form, eager_penalty)
    ours, eager = (allocated_at_most(lambda f=f: parameter_gradients(f(critic, x)[0], critic)) for f in penalties)
    assert ours <= bar * eager, f"{ours / eager:.2f} of eager"


def test_no_graph_is_left() -> None:
    critic, x = fully_connected(nn.LayerNorm(7).double(), nn.Tanh()), points()
    value, _ = closed_form(critic, x)
    below = [node for node, _ in value.grad_fn.next_functions if node is not None]
    assert {id(node.variable) for node in below} == {id(param) for param in critic.parameters() if param.dim()} - {
        id(critic[-1].bias)
    }
