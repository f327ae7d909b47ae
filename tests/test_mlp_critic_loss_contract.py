"""mlp_critic_loss as an operator: what it refuses, and under torch.library, torch.compile and autograd."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from cases import assert_same_error, compile_once, leaf
from mlp_draws import DTYPES, SETTINGS, Critic, draw, flat
from tolerances import assert_same_by_another_route

from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss


def operator(*arguments: Any) -> Any:
    return torch.ops.wgan_kernels.mlp_critic_loss.default(*arguments)


def operator_arguments(critic: Critic) -> tuple[Any, ...]:
    biases = [critic.mixed.new_empty(0) if bias is None else bias for bias in critic.biases]
    return *critic.arguments()[:4], biases, critic.slopes, 1.0, False, 1, 10.0


def test_it_is_not_differentiable(backend: str) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    for place in range(5):
        arguments = list(critic.arguments())
        of = arguments[place]
        arguments[place] = leaf(of) if isinstance(of, torch.Tensor) else [leaf(of[0]), *of[1:]]
        with pytest.raises(ValueError, match="must be detached"):
            mlp_critic_loss(*arguments, **SETTINGS[0])
        with torch.no_grad():
            terms = mlp_critic_loss(*arguments, **SETTINGS[0])
        assert not any([result.requires_grad for result in flat(terms)])


def test_the_operator_raises_in_backward(native: None) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    for place in range(5):
        arguments = list(operator_arguments(critic))
        of = arguments[place]
        arguments[place] = leaf(of) if isinstance(of, torch.Tensor) else [leaf(each) for each in of]
        penalty, wasserstein, _, grad_weights, grad_biases = operator(*arguments, True)
        for result in (penalty, wasserstein, *grad_weights, *grad_biases):
            assert result.requires_grad
            with pytest.raises(NotImplementedError, match="mlp_critic_loss is not differentiable"):
                result.sum().backward(retain_graph=True)


def test_opcheck(native: None) -> None:
    for dtype, biased, judged in itertools.product(DTYPES, (True, False), (True, False)):
        critic = draw(5, (3, 4, 2), dtype, [0.2, 1.0], biased, judged)
        for needs_grads in (True, False):
            arguments = (*operator_arguments(critic), needs_grads)
            results = torch.library.opcheck(torch.ops.wgan_kernels.mlp_critic_loss.default, arguments)
            assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_compiled(backend: str) -> None:
    for dtype, judged in itertools.product(DTYPES, (True, False)):
        critic = draw(20, (4, 9, 1), dtype, [0.2, 1.0], judged=judged)
        compiled = compile_once(lambda *tensors: flat(mlp_critic_loss(*tensors, **SETTINGS[0])), backend)
        expected = flat(mlp_critic_loss(*critic.arguments(), **SETTINGS[0]))
        for actual, same in zip(compiled(*critic.arguments()), expected, strict=True):
            assert_same_by_another_route(actual, same, "compiled")


def test_the_operator_refuses_what_does_not_fit(native: None) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    x, real, fake, weights, biases, slopes, *settings = operator_arguments(critic)
    for words, arguments in [
        ("mixed must be", (x[0], None, None, weights, biases, slopes)),
        ("a slope per layer", (x, real, fake, weights, biases, slopes[:1])),
        ("a bias", (x, real, fake, weights, biases[:1], slopes)),
        ("with a weight", (x, real, fake, [], [], [])),
        (r"weights\[1\] must be \[out, 4\]", (x, real, fake, [weights[0], weights[0]], biases, slopes)),
        (r"weights\[0\] must be", (x, real, fake, [weights[0].double(), weights[1]], biases, slopes)),
        (r"biases\[0\] must be", (x, real, fake, weights, [biases[0][:2], biases[1]], slopes)),
        (r"biases\[1\] must be", (x, real, fake, weights, [biases[0], biases[1].double()], slopes)),
        ("float32 or float64", (x.half(), real, fake, weights, biases, slopes)),
        ("come together", (x, real, None, weights, biases, slopes)),
        ("real must be of the shape", (x, real[:2], fake, weights, biases, slopes)),
        ("fake must be of the shape and dtype", (x, real, fake.double(), weights, biases, slopes)),
    ]:
        with pytest.raises(RuntimeError, match=words):
            operator(*arguments, *settings, True)
    with pytest.raises(RuntimeError, match="reduction must be 1 or 2"):
        operator(x, real, fake, weights, biases, slopes, 1.0, False, 0, 10.0, True)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"target": -1.0}, ValueError, ["target", "at least 0"]),
        ({"one_sided": 1}, TypeError, ["one_sided", "int"]),
        ({"reduction": "none"}, ValueError, ["reduction", "'mean', 'sum'", "'none'"]),
    ],
)
def test_bad_settings(settings: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    assert_same_error(lambda: mlp_critic_loss(*critic.arguments(), **{**SETTINGS[0], **settings}), error, *words)
