"""The loss and the penalty of fully connected critics, which one operator computes: as by the graph, in every use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import samples
from tolerances import EAGER_FLOAT64, largest
from torch import Tensor, nn

from wgan_kernels import critic_loss, gradient_penalty, wasserstein_critic_loss

DOUBLE = torch.float64
REAL, FAKE = samples((6, 2, 3), DOUBLE, seed=1), samples((6, 2, 3), DOUBLE, seed=2)
MIX = torch.tensor([0.2, 0.9, 0.5, 0.35, 0.6, 0.05], dtype=DOUBLE)


def critic(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(3)
    layers = (nn.Linear(6, 9, bias), nn.LeakyReLU(0.2), nn.Linear(9, 7), nn.ReLU(), nn.Linear(7, 2, bias))
    return nn.Sequential(nn.Flatten(), *layers).double()


def frozen(*names: str) -> nn.Sequential:
    made = critic()
    for name in names:
        made.get_parameter(name).requires_grad_(False)
    return made


def gradients(value: Tensor, module: nn.Module, **settings: Any) -> list[Tensor]:
    params = [param for param in module.parameters() if param.requires_grad]
    grads = torch.autograd.grad(value, params, allow_unused=True, **settings)
    return [torch.zeros_like(p) if grad is None else grad for grad, p in zip(grads, params, strict=True)]


def assert_same(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for a, b in zip(ours, theirs, strict=True):
        assert a.shape == b.shape
        assert largest(a - b) <= EAGER_FLOAT64 * max(1, largest(b))


@pytest.fixture
def joined(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The calls that one operator served."""
    calls: list[Any] = []
    serve = critic_loss.fully_connected_loss
    monkeypatch.setattr(critic_loss, "fully_connected_loss", lambda *args: calls.append(args) or serve(*args))
    return calls


SETTINGS: dict[str, tuple[Callable[[], nn.Sequential], dict[str, Any]]] = {
    "as it is": (critic, {"mix": MIX}),
    "asked for": (critic, {"mix": MIX, "route": "closed_form"}),
    "one-sided sum": (critic, {"mix": MIX, "one_sided": True, "reduction": "sum", "weight": 0.1, "target": 0.4}),
    "R1": (critic, {"points": "real", "target": 0.0}),
    "R2": (critic, {"points": "fake", "target": 0.0}),
    "dragan": (critic, {"points": "dragan", "mix": MIX, "noise": samples((6, 2, 3), DOUBLE, seed=9)}),
    "without biases": (lambda: critic(bias=False), {"mix": MIX}),
    "a frozen layer": (lambda: frozen("1.weight", "1.bias"), {"mix": MIX}),
    "frozen biases": (lambda: frozen("1.bias", "3.bias", "5.bias"), {"mix": MIX}),
    "the last bias alone": (lambda: frozen("1.weight", "1.bias", "3.weight", "3.bias", "5.weight"), {"mix": MIX}),
}


@pytest.mark.parametrize("part", ["loss", "wasserstein", "penalty", "all"])
@pytest.mark.parametrize("name", SETTINGS)
def test_loss_and_parts(backend: str, joined: list[Any], name: str, part: str) -> None:
    make, settings = SETTINGS[name]
    module, results = make(), []
    for route in (settings.get("route", "auto"), "double_backward"):
        terms = wasserstein_critic_loss(module, REAL, FAKE, **{**settings, "route": route}, return_terms=True)
        chosen = {"all": terms.loss + 2 * terms.penalty - 3 * terms.wasserstein}.get(part, getattr(terms, part, None))
        grads = gradients(chosen, module) if chosen.requires_grad else []
        results.append([*terms[:3], terms.norms, *grads])
    assert_same(*results)
    assert len(joined) == 1


def test_the_same_numbers_are_drawn(backend: str, joined: list[Any]) -> None:
    module = critic()
    values = []
    for route in ("auto", "double_backward"):
        torch.manual_seed(5)
        values.append([wasserstein_critic_loss(module, REAL, FAKE, route=route), torch.rand(1)])
        generator = torch.Generator().manual_seed(6)
        values[-1].append(wasserstein_critic_loss(module, REAL, FAKE, route=route, generator=generator))
    assert_same(*values)
    assert len(joined) == 2


LOSSES: dict[str, Callable[[nn.Module, str], Tensor]] = {
    "penalty": lambda module, route: gradient_penalty(module, REAL, FAKE, mix=MIX, route=route),
    "loss": lambda module, route: wasserstein_critic_loss(module, REAL, FAKE, mix=MIX, route=route),
}


@pytest.mark.parametrize("name", LOSSES)
class TestBackward:
    def test_scaled(self, backend: str, name: str) -> None:
        module = critic()
        ours, theirs = (gradients(0.125 * LOSSES[name](module, route), module) for route in ("auto", "double_backward"))
        assert_same(ours, theirs)

    @pytest.mark.parametrize("kept", ["retain_graph", "create_graph"])
    def test_twice_through_one_graph(self, backend: str, name: str, kept: str) -> None:
        """What a pass hands out may be written to, and is not written to by the next one."""
        module = critic()
        value = LOSSES[name](module, "auto")
        expected = [grad.clone() for grad in gradients(LOSSES[name](module, "double_backward"), module)]
        for factor in (3, 1, 0.5):
            found = [grad.detach() for grad in gradients(factor * value, module, **{kept: True})]
            assert_same(found, [factor * grad for grad in expected])
            held = [grad.clone() for grad in found]
            gradients(7 * value, module, **{kept: True})
            assert_same(found, held)
            for grad in found:
                grad.zero_()
        last = gradients(value, module)
        assert_same(last, expected)
        assert not any([grad.requires_grad for grad in last])
        with pytest.raises(RuntimeError, match="second time"):
            gradients(value, module)

    def test_accumulated(self, backend: str, name: str) -> None:
        module = critic()
        for _ in range(2):
            LOSSES[name](module, "auto").backward()
        once = gradients(LOSSES[name](module, "double_backward"), module)
        grads = [torch.zeros_like(param) if param.grad is None else param.grad for param in module.parameters()]
        assert_same(grads, [2 * grad for grad in once])

    def test_many_at_once(self, backend: str, name: str) -> None:
        module = critic()
        params, seeds = list(module.parameters())[:5], torch.tensor([1.0, -2.0, 0.5], dtype=DOUBLE)
        batched, each = (
            torch.autograd.grad(LOSSES[name](module, "auto"), params, seeds, is_grads_batched=True),
            gradients(LOSSES[name](module, "double_backward"), module),
        )
        assert_same(list(batched), [torch.stack([seed * grad for seed in seeds]) for grad in each[:5]])

    def test_a_second_derivative_raises(self, backend: str, name: str) -> None:
        module = critic()
        first = torch.autograd.grad(LOSSES[name](module, "auto") ** 2, module[1].weight, create_graph=True)[0]
        with pytest.raises(NotImplementedError, match="first derivative only"):
            (first.sum() + module[1].weight.square().sum()).backward()

    def test_weights_written_to_before_it(self, backend: str, name: str) -> None:
        module = critic()
        value = LOSSES[name](module, "auto")
        with torch.no_grad():
            module[1].weight.mul_(2)
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            value.backward()

    def test_written_into(self, backend: str, name: str) -> None:
        module, results = critic(), []
        for route in ("auto", "double_backward"):
            value = LOSSES[name](module, route)
            value += 3 * module[1].weight.square().sum()
            results.append([value, *gradients(value, module)])
        assert_same(*results)


@pytest.mark.parametrize("part", ["wasserstein", "penalty"])
@pytest.mark.parametrize("written", ["real", "frozen"])
def test_parts_after_what_they_are_made_of_was_written_to(backend: str, part: str, written: str) -> None:
    module, real, fake = frozen("3.weight"), REAL.clone(), FAKE.clone()
    terms = wasserstein_critic_loss(module, real, fake, points="real", return_terms=True)
    with torch.no_grad():
        (real if written == "real" else module[3].weight).mul_(2)
    if part == "penalty" and written == "real":  # it has a copy of its own
        return
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        getattr(terms, part).backward()


def test_parts_are_graphs_of_their_own(backend: str) -> None:
    module, results = critic(), []
    for route in ("auto", "double_backward"):
        module.zero_grad()
        terms = wasserstein_critic_loss(module, REAL, FAKE, mix=MIX, route=route, return_terms=True)
        terms.penalty.backward()
        assert module[5].bias.grad is None
        terms.wasserstein.backward()
        results.append([param.grad for param in module.parameters()])
    assert_same(*results)


def test_a_penalty_that_overflows_is_not_in_the_gradients_of_wasserstein(backend: str) -> None:
    module = critic().float()
    with torch.no_grad():
        for param in module.parameters():
            param.mul_(1e20 if param.dim() > 1 else 0)
    real, fake = (1e-30 * x.float() for x in (REAL, FAKE))
    terms = wasserstein_critic_loss(module, real, fake, return_terms=True, weight=1e10)
    assert not terms.penalty.isfinite() and terms.wasserstein.isfinite()
    ours = gradients(terms.wasserstein, module)
    theirs = gradients(module(real).mean() - module(fake).mean(), module)
    assert all(torch.equal(a.isfinite(), b.isfinite()) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize(
    "settings",
    [
        {"sample_weight": torch.arange(6, dtype=DOUBLE)},
        {"norm_dims": 1},
        {"pac": 2, "mix": None},
        {"reduction": "max"},
        {"interval": 2, "step": 4},
        {"route": "functional"},
        {"args": ()},
    ],
    ids=lambda settings: next(iter(settings)),
)
def test_other_calls_go_another_way(backend: str, joined: list[Any], settings: dict[str, Any]) -> None:
    module = critic() if "pac" not in settings else nn.Sequential(nn.Unflatten(0, (-1, 2)), *critic()).double()
    if "pac" in settings:
        module[2] = nn.Linear(12, 9).double()
        settings = {**settings, "mix": MIX[:3]}
    else:
        settings = {"mix": MIX, **settings}
    other = {**settings, "route": "double_backward"}
    ours, theirs = (wasserstein_critic_loss(module, REAL, FAKE, **each) for each in (settings, other))
    assert_same(gradients(ours, module), gradients(theirs, module))
    assert len(joined) == ("args" in settings)
