"""Which route gradient_penalty takes, and that a choice that was wrong leaves no trace."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import assert_same_bits, assert_same_error, samples
from critics import Attending, OwnAttention, dense
from eager import gradient_of, mixed, parameter_gradients
from tolerances import largest
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils.parametrizations import spectral_norm

from wgan_kernels import explain_route, gradient_penalty
from wgan_kernels.state import State

DOUBLE = torch.float64
IMAGES, ROWS = samples((6, 3, 8, 8), DOUBLE, seed=1), samples((6, 6), DOUBLE, seed=2)
MIX = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.25, 0.55], dtype=DOUBLE)


def two_sided(norms: Tensor) -> Tensor:
    return 10 * (norms - 1) ** 2


def test_what_each_call_takes() -> None:
    critic, x = dense(), ROWS
    assert explain_route(critic, x).name == "closed_form"
    hooked = nn.Sequential(dense(), nn.Identity())
    hooked[0].register_forward_hook(lambda module, args, out: out.register_hook(lambda grad: 2 * grad) and None)
    route = explain_route(hooked, x)
    assert route.name == "double_backward" and "register_hook" in route.reason
    with torch.no_grad():
        assert "grad mode is off" in explain_route(critic, x).reason
    packed = torch.nn.Linear(12, 1).double()
    assert explain_route(lambda x: packed(x.reshape(-1, 12)), x[:2], pac=2).name == "closed_form"
    names = []
    torch.func.vmap(lambda row: names.append(explain_route(critic, row).name) or row)(x.reshape(2, 3, 6))
    assert names == ["functional"]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reduction": "none"}, ["closed_form", "reduction='none'"]),
        ({"detach": False}, ["closed_form", "detach=False"]),
        ({"route": "fastest"}, ["route", "'closed_form', 'functional', 'double_backward'", "'fastest'"]),
    ],
)
def test_a_route_that_the_call_does_not_allow(settings: dict[str, Any], words: list[str]) -> None:
    call = {"route": "closed_form", **settings}
    assert_same_error(lambda: gradient_penalty(dense(), ROWS, -ROWS, **call), ValueError, *words)


@pytest.mark.parametrize("make", [Attending, OwnAttention])
def test_attention(make: type[Attending]) -> None:
    torch.manual_seed(7)
    critic = make().double()
    ours = gradient_penalty(critic, ROWS, -ROWS, mix=MIX)
    with sdpa_kernel(SDPBackend.MATH):
        expected = two_sided(gradient_of(critic, mixed(ROWS, -ROWS, MIX)).norm(dim=1)).mean()
        theirs = parameter_gradients(expected, critic)
    for a, b in zip(parameter_gradients(ours, critic), theirs, strict=True):
        assert (a is None) == (b is None) and (a is None or largest(a - b) < 1e-10)


class Noisy(nn.Module):
    """Draws random numbers, moves a buffer, and, where `hook`, needs its graph as it is."""

    def __init__(self, hook: bool) -> None:
        super().__init__()
        self.first, self.last, self.hook = spectral_norm(nn.Linear(6, 8)), nn.Linear(8, 1), hook
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(torch.tanh(self.first(x)), 0.5)
        if self.hook:
            h.register_hook(lambda grad: None)
        return self.last(h)


def noisy(hook: bool) -> nn.Module:
    torch.manual_seed(2)
    return Noisy(hook).double()


@pytest.mark.parametrize("hook", [False, True])
def test_a_fallback_leaves_no_trace(hook: bool) -> None:
    """Same dropout, same power iteration, same random numbers afterwards as with the critic run once."""
    results = []
    for route in ("auto", "double_backward"):
        critic = noisy(hook)
        penalty = gradient_penalty(critic, ROWS, -ROWS, mix=MIX, route=route)
        grads = parameter_gradients(penalty, critic)
        results.append([penalty.detach(), torch.rand(3), *critic.buffers(), *[g for g in grads if g is not None]])
    for ours, theirs in zip(*results, strict=True):
        assert largest(ours - theirs) <= 1e-12
    assert_same_error(
        lambda: gradient_penalty(noisy(True), ROWS, -ROWS, route="closed_form"), ValueError, "closed_form", "hook"
    )


def test_a_reducer_that_looks_through_the_graph_is_given_all_of_it() -> None:
    class Wrapped(DistributedDataParallel):
        def __init__(self, module: nn.Module, find_unused_parameters: bool) -> None:
            nn.Module.__init__(self)
            self.module, self.find_unused_parameters = module, find_unused_parameters

        def forward(self, x: Tensor) -> Tensor:
            return self.module(x)

    assert explain_route(Wrapped(dense(), False), ROWS).name == "closed_form"
    route = explain_route(Wrapped(dense(), True), ROWS)
    assert route.name == "double_backward" and "unused parameters" in route.reason


def test_a_critic_that_needs_its_graph_is_run_twice_only_once() -> None:
    critic, calls = noisy(hook=True), []
    critic.register_forward_pre_hook(lambda *_: calls.append(1))
    for _ in range(3):
        gradient_penalty(critic, ROWS, -ROWS)
    assert len(calls) == 4 and explain_route(critic, ROWS).name == "double_backward"


def test_explain_route_is_not_noticed() -> None:
    critic, state = noisy(hook=False), torch.get_rng_state()
    before = [buffer.clone() for buffer in critic.buffers()]
    assert explain_route(critic, ROWS).name == "closed_form"
    assert torch.equal(state, torch.get_rng_state())
    for buffer, value in zip(critic.buffers(), before, strict=True):
        assert_same_bits(buffer, value)


class Counting(nn.Module):
    """Counts its calls in training mode; `hook` makes it need its graph."""

    def __init__(self, in_place: bool = True) -> None:
        super().__init__()
        self.layer, self.hook, self.in_place = nn.Linear(6, 1), False, in_place
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("table", torch.ones(6))

    def forward(self, x: Tensor) -> Tensor:
        h = (x * self.table).tanh()
        if self.training:
            self.count = self.count.add_(1) if self.in_place else self.count + 1
        if self.hook:
            h.register_hook(lambda grad: None)
        return self.layer(h)


@pytest.mark.parametrize("in_place", [True, False])
def test_buffers_that_move_are_put_back_when_a_later_call_is_not_covered(in_place: bool) -> None:
    critic = Counting(in_place).double()
    for training, expected in ((True, 3), (False, 3), (True, 6)):
        critic.train(training)
        for _ in range(3):
            gradient_penalty(critic, ROWS, -ROWS)
        assert critic.count.item() == expected
    critic.hook = True
    gradient_penalty(critic, ROWS, -ROWS)
    assert critic.count.item() == 7


def test_buffers_that_an_earlier_call_left_alone_are_not_copied() -> None:
    critic = Counting().double()
    gradient_penalty(critic, ROWS, -ROWS)
    names = [name for _, name, _, _ in State(critic, ROWS)._copies]
    assert names == ["count"]
    assert [name for _, name, _, _ in State(critic.eval(), ROWS)._copies] == ["count", "table"]


def test_a_buffer_that_moves_for_the_first_time_when_a_call_is_not_covered() -> None:
    critic = Counting().double().eval()
    gradient_penalty(critic, ROWS, -ROWS)
    critic.register_forward_pre_hook(lambda module, args: (module.table.add_(1), None)[1])
    critic.hook = True
    with pytest.warns(UserWarning, match="'table'.*wrote twice"):
        gradient_penalty(critic, ROWS, -ROWS)
    assert critic.table.eq(3).all()
