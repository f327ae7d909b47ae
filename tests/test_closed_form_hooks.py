"""Hooks inside critics, and tensors that critics take from outside: as with the whole graph, or by it."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import samples
from tolerances import EAGER_FLOAT64, largest
from torch import Tensor, nn
from torch.nn import functional

from wgan_kernels import explain_route, gradient_penalty

DOUBLE = torch.float64
REAL, FAKE = samples((4, 4), DOUBLE, seed=1), samples((4, 4), DOUBLE, seed=2)
MIX = torch.tensor([0.2, 0.9, 0.5, 0.35], dtype=DOUBLE)


def doubled(grads: tuple[Tensor | None, ...]) -> tuple[Tensor | None, ...]:
    return tuple([None if grad is None else 2 * grad for grad in grads])


class Hooked(nn.Module):
    """A critic that does something to the values on the way; what it does may raise, and be caught."""

    def __init__(self, hook: Callable[..., Any]) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 1)
        self.hook = hook

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        weight = self.second.weight.tanh()
        a = functional.leaky_relu(h, 0.2)
        b = functional.linear(a, weight) * (a @ weight).cos()
        try:
            self.hook(x, h, a, b, weight)
        except ValueError:
            pass
        return self.last(b.tanh())


def caught(x: Tensor, h: Tensor, a: Tensor, b: Tensor, weight: Tensor) -> None:
    try:
        h.register_hook(lambda grad: 2 * grad)
    except Exception as error:
        raise ValueError from error


HOOKS: dict[str, Callable[..., Any]] = {
    "before a layer": lambda x, h, a, b, w: h.grad_fn.register_prehook(doubled),
    "after a layer": lambda x, h, a, b, w: h.grad_fn.register_hook(lambda grads, _: doubled(grads)),
    "before an activation": lambda x, h, a, b, w: a.grad_fn.register_prehook(doubled),
    "before another operation": lambda x, h, a, b, w: b.grad_fn.register_prehook(doubled),
    "of the node before": lambda x, h, a, b, w: b.grad_fn.next_functions[0][0].register_prehook(doubled),
    "by the edge": lambda x, h, a, b, w: torch.autograd.graph.get_gradient_edge(h).node.register_prehook(doubled),
    "on a value": lambda x, h, a, b, w: a.register_hook(lambda grad: 2 * grad),
    "on several values": lambda x, h, a, b, w: torch.autograd.graph.register_multi_grad_hook((h, b), lambda _: None),
    "on the samples": lambda x, h, a, b, w: x.register_hook(lambda grad: 2 * grad),
    "on the samples, when added up": lambda x, h, a, b, w: x.register_post_accumulate_grad_hook(lambda _: None),
    "on a weight that was computed": lambda x, h, a, b, w: w.register_hook(lambda grad: grad.clamp(-0.01, 0.01)),
    "before a weight": lambda x, h, a, b, w: w.grad_fn.register_prehook(lambda grads: (grads[0].clamp(-0.01, 0.01),)),
    "where errors are caught": caught,
}


def outcome(make: Callable[[], nn.Module], route: str) -> list[Tensor | None]:
    torch.manual_seed(3)
    critic = make().double()
    penalty = gradient_penalty(critic, REAL, FAKE, mix=MIX, route=route)
    penalty.backward()
    return [penalty.detach(), *[param.grad for param in critic.parameters()]]


def assert_equal(ours: list[Tensor | None], theirs: list[Tensor | None]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None) and (a is None or largest(a - b) <= EAGER_FLOAT64 * max(1, largest(b)))


@pytest.mark.parametrize("name", HOOKS)
def test_hooks_inside_a_critic(name: str) -> None:
    def make() -> nn.Module:
        return Hooked(HOOKS[name])

    assert_equal(outcome(make, "auto"), outcome(make, "double_backward"))
    assert explain_route(make().double(), REAL).name == "double_backward"
    assert explain_route(Hooked(lambda *_: None).double(), REAL).name == "closed_form"


@pytest.mark.parametrize("before", [False, True])
def test_backward_hooks_of_modules(before: bool) -> None:
    def make() -> nn.Module:
        critic = nn.Sequential(nn.Linear(4, 4), nn.LeakyReLU(0.2), nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 1))
        if before:
            critic[1].register_full_backward_pre_hook(lambda module, grads: doubled(grads))
        else:
            critic[2].register_full_backward_hook(lambda module, grads, _: doubled(grads))
        return critic

    assert_equal(outcome(make, "auto"), outcome(make, "double_backward"))


def thawed_again(x: Tensor, module: nn.Module) -> Tensor:
    module.requires_grad_(False)
    out = module(x)
    module.requires_grad_(True)
    return out


@pytest.mark.parametrize("layer", [nn.Linear(4, 4), nn.LayerNorm(4), nn.PReLU()], ids=repr)
def test_parameters_that_are_frozen_for_a_part_of_the_critic(layer: nn.Module) -> None:
    class Freezing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.layer, self.last = nn.Linear(4, 4), layer, nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(thawed_again(self.first(x), self.layer).tanh())

    state = {name: value.clone() for name, value in layer.state_dict().items()}
    found = []
    for route in ("auto", "double_backward"):
        layer.zero_grad()
        layer.load_state_dict(state)
        found.append([None if g is None else g.clone() for g in outcome(Freezing, route)])
    assert_equal(*found)


class Conditional(nn.Module):
    """A critic of samples and of an embedding that is computed elsewhere."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(4, 4), nn.Linear(4, 1), function

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return self.last(self.function(self.first(x), y).tanh())


def enclosing(critic: nn.Module, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: critic(x, y)


def enclosing_too(critic: nn.Module, y: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda x: critic(x, y)


OUT_OF_SIGHT = torch.jit.script(nn.Bilinear(4, 4, 4).double().requires_grad_(False))
USES: dict[str, Callable[..., Tensor]] = {
    "factor": lambda h, y: h * y + y * y.sin(),
    "weight": lambda h, y: functional.linear(h, y),
    "computed weight": lambda h, y: functional.linear(h, y.tanh()),
    "weight and factor": lambda h, y: functional.linear(h, y) + h @ y,
    "parts": lambda h, y: torch.cat([h[:, :2] * y.unbind(1)[0].unsqueeze(1), h[:, 2:] * y[:, 2:]], 1),
    "out of sight": lambda h, y: OUT_OF_SIGHT(h, y),
}


@pytest.mark.parametrize("meddle", ["nothing", "hook", "hook below", "retain_grad"])
@pytest.mark.parametrize("given", ["args", "kwargs", "closure"])
@pytest.mark.parametrize("use", USES)
def test_conditioning_tensors_with_a_graph_of_their_own(use: str, given: str, meddle: str) -> None:
    labels, found = torch.tensor([2, 0, 1, 1]), []
    for route in ("auto", "double_backward"):
        torch.manual_seed(3)
        critic, embedding = Conditional(USES[use]).double(), nn.Embedding(3, 4).double()
        y = embedding(labels) * 1.5
        if meddle == "hook":
            y.register_hook(lambda grad: grad.clamp(-0.01, 0.01))
        elif meddle == "hook below":
            y.grad_fn.register_prehook(lambda grads: (grads[0].clamp(-0.01, 0.01),))
        elif meddle == "retain_grad":
            y.retain_grad()
        call = {"args": {"args": (y,)}, "kwargs": {"kwargs": {"y": y}}, "closure": {}}[given]
        function = critic if call else enclosing(critic, y)
        if meddle == "nothing":
            covered = use != "out of sight"
            assert explain_route(function, REAL, **call).name == ("closed_form" if covered else "double_backward")
        penalty = gradient_penalty(function, REAL, FAKE, mix=MIX, route=route, **call)
        direct = torch.autograd.grad(penalty, [y], retain_graph=True)
        penalty.backward()
        kept = [y.grad] if meddle == "retain_grad" else []
        found.append([penalty.detach(), *direct, embedding.weight.grad, *kept, *[p.grad for p in critic.parameters()]])
    assert largest(found[1][-2]) > 0
    assert_equal(*found)


@pytest.mark.parametrize("given", ["args", "kwargs", "closure"])
@pytest.mark.parametrize("why", ["a graph of its own", "a hook", None])
def test_a_critic_that_writes_into_what_it_is_given_is_not_called_twice(why: str | None, given: str) -> None:
    def function(h: Tensor, y: Tensor) -> Tensor:
        h = h * y.mul_(2)
        if why == "a hook":
            h.register_hook(lambda grad: 2 * grad)
        return h

    found = []
    for route in ("double_backward", "auto"):
        torch.manual_seed(3)
        critic = Conditional(function).double()
        y = torch.ones(4, 4, dtype=DOUBLE, requires_grad=why == "a graph of its own") * 1.5
        call = {"args": {"args": (y,)}, "kwargs": {"kwargs": {"y": y}}, "closure": {}}[given]
        # A function of its own: what one needs is remembered of all that share its code.
        score = critic if call else enclosing_too(critic, y)
        if route == "auto" and why is not None:
            with pytest.raises(ValueError, match=r"'double_backward'.*writes into what it is given"):
                gradient_penalty(score, REAL, FAKE, mix=MIX, route=route, **call)
        else:
            found.append([gradient_penalty(score, REAL, FAKE, mix=MIX, route=route, **call).detach(), y.detach()])
    if why is None:
        assert_equal(*found)


def test_a_critic_with_threads_of_its_own() -> None:
    """Every thread of autograd numbers what it records by itself."""

    class Threaded(Conditional):
        def forward(self, x: Tensor) -> Tensor:
            h, found = self.first(x), []
            thread = threading.Thread(target=lambda: found.append(h.sin()))
            thread.start()
            thread.join()
            return self.last(found[0] * h).tanh() + found[0].sum(1, keepdim=True)

    [x * 1.0 for x in [torch.ones(4, requires_grad=True)] * 50]  # so that this thread is far ahead
    make = functools.partial(Threaded, lambda h, y: h)
    assert_equal(outcome(make, "auto"), outcome(make, "double_backward"))
