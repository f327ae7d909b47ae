"""What gradient_penalty refuses, and what critics may return."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from cases import assert_same_error, samples
from torch import Tensor, nn

from wgan_kernels import check_critic, explain_route, gradient_penalty, wasserstein_critic_loss

DOUBLE = torch.float64
IMAGES, ROWS = samples((6, 3, 8, 8), DOUBLE, seed=1), samples((6, 6), DOUBLE, seed=2)
MIX = torch.tensor([0.1, 0.9, 0.4, 0.7, 0.25, 0.55], dtype=DOUBLE)


class Counting(nn.Module):
    """A critic with a state that each call changes, as spectral or batch normalisation has."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 1)
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return self.layer(x)


X = torch.ones(4, 3)
BAD_ARGUMENTS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"weight": True}, TypeError, ["weight", "number", "bool"]),
    ({"weight": "10"}, TypeError, ["weight", "number", "str"]),
    ({"weight": None}, TypeError, ["weight", "number", "NoneType"]),
    ({"weight": torch.nan}, ValueError, ["weight", "finite", "nan"]),
    ({"weight": torch.inf}, ValueError, ["weight", "finite", "inf"]),
    ({"target": True}, TypeError, ["target", "number", "bool"]),
    ({"target": "1"}, TypeError, ["target", "number", "str"]),
    ({"target": None}, TypeError, ["target", "number", "NoneType"]),
    ({"target": -1.0}, ValueError, ["target", "at least 0", "-1"]),
    ({"target": torch.nan}, ValueError, ["target", "nan"]),
    ({"one_sided": "yes"}, TypeError, ["one_sided", "str"]),
    ({"reduction": "avg"}, ValueError, ["reduction", "'none', 'mean', 'sum'", "'avg'"]),
    ({"reduction": None}, ValueError, ["reduction", "None"]),
    ({"points": "between"}, ValueError, ["points", "'mixed', 'real', 'fake'", "'between'"]),
    ({"points": None}, ValueError, ["points", "None"]),
    ({"real": X.tolist()}, TypeError, ["real", "Tensor", "list"]),
    ({"real": None}, TypeError, ["real", "Tensor", "NoneType"]),
    ({"fake": None}, TypeError, ["fake", "Tensor", "NoneType"]),
    ({"real": None, "points": "real"}, TypeError, ["real", "Tensor", "NoneType"]),
    ({"fake": None, "points": "fake"}, TypeError, ["fake", "Tensor", "NoneType"]),
    ({"real": X.long()}, TypeError, ["real", "float64", "int64"]),
    ({"fake": X.to(torch.complex64)}, TypeError, ["fake", "float64", "complex64"]),
    ({"fake": X.long(), "points": "fake"}, TypeError, ["fake", "float64", "int64"]),
    ({"real": X.to_sparse()}, TypeError, ["real", "strided", "sparse"]),
    ({"real": X[0, 0], "fake": X[0, 0]}, ValueError, ["real", "batch dimension"]),
    ({"real": X[0, 0], "points": "real"}, ValueError, ["real", "batch dimension"]),
    ({"fake": X[:3]}, ValueError, ["fake", "shape of real", r"\(4, 3\)", r"\(3, 3\)"]),
    ({"fake": X[:, :2]}, ValueError, ["fake", "shape of real", r"\(4, 2\)"]),
    ({"fake": X.to("meta")}, ValueError, ["fake", "device of real", "meta"]),
    ({"real": X.to("meta")}, ValueError, ["fake", "device of real", "meta"]),
    ({"mix": 0.5}, TypeError, ["mix", "Tensor", "float"]),
    ({"mix": X[:3, 0]}, ValueError, ["mix", r"\(4,\)", r"\(3,\)"]),
    ({"mix": X}, ValueError, ["mix", r"\(4,\)", r"\(4, 3\)"]),
    ({"mix": X[:, 0].to("meta")}, ValueError, ["mix", "device", "meta"]),
    ({"mix": X[:, 0].long()}, TypeError, ["mix", "int64"]),
    ({"mix": X[:, 0], "generator": torch.Generator()}, TypeError, ["generator", "mix"]),
    ({"mix": X[:, 0], "points": "real"}, ValueError, ["mix", "points='real'"]),
    ({"generator": torch.Generator(), "points": "fake"}, ValueError, ["generator", "points='fake'"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_ARGUMENTS)
def test_bad_arguments_are_refused_before_anything_happens(
    arguments: dict[str, Any], error: type[Exception], words: list[str]
) -> None:
    critic, state = Counting(), torch.random.get_rng_state()
    call = {"critic": critic, "real": X, "fake": X, **arguments}
    assert_same_error(lambda: gradient_penalty(**call), error, *words)
    assert critic.calls == 0, "the critic was run, and what it keeps was written, before the argument was refused"
    assert torch.equal(state, torch.random.get_rng_state()), "numbers were drawn before the argument was refused"


BAD_SETTINGS: list[tuple[dict[str, Any], type[Exception], list[str]]] = [
    ({"points": "real", "noise": ROWS}, ValueError, ["noise", "'real'"]),
    ({"points": "dragan", "noise": ROWS[:3]}, ValueError, ["noise", r"\(6, 6\)", r"\(3, 6\)"]),
    ({"points": "dragan", "noise": 0.1}, TypeError, ["noise", "float"]),
    ({"points": "dragan", "mix": MIX[:4]}, ValueError, ["mix", r"\(6,\)", r"\(4,\)"]),
    ({"pac": 4}, ValueError, ["pac=4", "multiple", "6"]),
    ({"pac": 0}, ValueError, ["pac", "at least 1"]),
    ({"pac": 2.0}, TypeError, ["pac", "float"]),
    ({"pac": 2, "norm_dims": 1}, ValueError, ["norm_dims", "pac=2"]),
    ({"norm_dims": 0}, ValueError, ["norm_dims", "other than the first", "0"]),
    ({"norm_dims": (1, -1)}, ValueError, ["norm_dims", "once"]),
    ({"norm_dims": ()}, ValueError, ["norm_dims"]),
    ({"norm_dims": 2}, ValueError, ["norm_dims", r"\(6, 6\)"]),
    ({"sample_weight": torch.ones(5)}, ValueError, ["sample_weight", r"\(6,\)", r"\(5,\)"]),
    ({"sample_weight": torch.ones(6), "pac": 2}, ValueError, ["sample_weight", r"\(3,\)"]),
    ({"sample_weight": 2.0}, TypeError, ["sample_weight", "float"]),
    ({"sample_weight": torch.ones(6, device="meta")}, ValueError, ["sample_weight", "device", "meta"]),
    ({"interval": 0}, ValueError, ["interval", "at least 1"]),
    ({"interval": 16}, ValueError, ["step", "interval=16"]),
    ({"interval": 16, "step": 1.5}, TypeError, ["step", "float"]),
    ({"scaler": 65536.0}, TypeError, ["scaler", "GradScaler", "float"]),
]


@pytest.mark.parametrize(("arguments", "error", "words"), BAD_SETTINGS)
def test_bad_settings(arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    def never(x: Tensor) -> Tensor:
        raise AssertionError("the critic was called")

    state = torch.get_rng_state()
    assert_same_error(lambda: gradient_penalty(never, ROWS, -ROWS, **arguments), error, *words)
    assert torch.equal(state, torch.get_rng_state())


def scores(x: Tensor) -> Tensor:
    return x.square().sum(1)


@pytest.mark.parametrize(
    ("critic", "output"),
    [
        (lambda x: scores(x)[:, None], None),
        (lambda x: x.square(), None),  # a map of scores
        (lambda x: x.square().reshape(-1, 3, 1, 1), None),
        (lambda x: (scores(x), x), 0),
        (lambda x: [x, scores(x)], 1),
        (lambda x: (x, scores(x)), -1),
        (lambda x: {"score": scores(x), "features": x}, "score"),
        (lambda x: (x, {"score": scores(x)}), lambda result: result[1]["score"]),
        (lambda x: torch.stack([x.sum(1), scores(x)], 1), lambda result: result[:, 1]),
    ],
)
def test_what_critics_return(backend: str, critic: Callable[[Tensor], Any], output: Any) -> None:
    x = samples((4, 3), DOUBLE)
    penalty = gradient_penalty(critic, x, x, output=output, points="real")
    assert penalty.item() == pytest.approx(10 * ((2 * x.norm(dim=1) - 1) ** 2).mean().item(), rel=1e-12)


BAD_CRITICS: list[tuple[Callable[[Tensor], Any], dict[str, Any], type[Exception], list[str]]] = [
    (lambda x: torch.ones(4), {}, ValueError, ["critic", "depend"]),
    (lambda x: torch.ones(4, requires_grad=True) * 2, {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(x.detach()), {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(torch.tensor(x.tolist())), {}, ValueError, ["critic", "depend"]),
    (torch.no_grad()(scores), {}, ValueError, ["critic", "depend"]),
    (lambda x: scores(x).mean(), {}, ValueError, ["critic", r"\(4,\)", r"\(\)", "mean"]),
    (lambda x: scores(x).mean().reshape(1), {}, ValueError, ["critic", r"\(4,\)", r"\(1,\)"]),
    (lambda x: scores(x)[:3], {}, ValueError, ["critic", r"\(4,\)", r"\(3,\)", "every gradient$"]),
    (lambda x: scores(x)[:2], {}, ValueError, ["critic", r"\(4,\)", r"\(2,\)", "judges 2 samples.* needs pac=2"]),
    (lambda x: (scores(x), x), {}, TypeError, ["critic", "tuple", "output="]),
    (lambda x: {"score": scores(x)}, {}, TypeError, ["critic", "dict", "output="]),
    (lambda x: None, {}, TypeError, ["critic", "NoneType"]),
    (lambda x: scores(x).sum().item(), {}, TypeError, ["critic", "float"]),
    (lambda x: scores(x).long(), {}, TypeError, ["critic", "int64"]),
    (lambda x: scores(x).to(torch.complex64), {}, TypeError, ["critic", "complex64"]),
    (lambda x: {"score": scores(x)}, {"output": "logit"}, ValueError, ["output", "'logit'", "dict"]),
    (lambda x: (scores(x),), {"output": 1}, ValueError, ["output", "1", "tuple"]),
    (lambda x: (scores(x),), {"output": "score"}, ValueError, ["output", "'score'", "tuple"]),
    (lambda x: scores(x), {"output": "score"}, ValueError, ["output", "'score'", "Tensor"]),
    (lambda x: (scores(x), "text"), {"output": 1}, TypeError, ["critic|output", "str"]),
]


@pytest.mark.parametrize(("critic", "arguments", "error", "words"), BAD_CRITICS)
def test_bad_critics(critic: Any, arguments: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    assert_same_error(lambda: gradient_penalty(critic, X, X, **arguments), error, *words)


@pytest.mark.parametrize(
    ("critic", "arguments", "words"),
    [
        (5, {}, ["critic", "int"]),
        (scores, {"args": X}, ["args must be a tuple or list", r"args=\(labels,\)", "Tensor"]),
        (scores, {"kwargs": X}, ["kwargs must be a dict", "Tensor"]),
    ],
)
def test_what_is_no_critic_or_not_for_one_is_refused_by_name(critic: Any, arguments: Any, words: list[str]) -> None:
    assert_same_error(lambda: gradient_penalty(critic, X, X, **arguments), TypeError, *words)
    assert_same_error(lambda: wasserstein_critic_loss(critic, X, X, **arguments), TypeError, *words)
    assert_same_error(lambda: explain_route(critic, X, **arguments), TypeError, *words)
    assert_same_error(lambda: check_critic(critic, X, **arguments), TypeError, *words)


def test_an_error_inside_the_critic_comes_out_as_it_is(backend: str) -> None:
    def critic(x: Tensor) -> Tensor:
        raise RuntimeError("out of cheese")

    with pytest.raises(RuntimeError, match="^out of cheese$"):
        gradient_penalty(critic, X, X)
