"""mlp_critic_loss: a fully connected critic's gradient penalty with its derivatives, against differentiating it twice."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import assert_same_bits, assert_same_error, compile_once, lay_out, leaf, penalty, samples
from tolerances import PER_LAYER, assert_as_good_as_torch, assert_same_by_another_route, largest
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

from wgan_kernels.ops.mlp_critic_loss import mlp_critic_loss

DTYPES = (torch.float64, torch.float32)
# Batches and features around the vectors of samples (2 to 16, one or two of them) and the blocks of 6 and 8 rows;
# depths 1 to 5; one score and more.
CRITICS = [
    (1, (1, 1)),
    (3, (5, 2)),
    (8, (1, 7, 1)),
    (16, (9, 8, 3)),
    (17, (16, 17, 6, 1)),
    (33, (33, 8, 31, 1)),
    (64, (7, 64, 15, 40, 1)),
    (70, (12, 33, 32, 9, 48, 2)),
    (1030, (3, 20, 1)),  # more samples than are summed at once
]
SLOPES = (0.0, 0.2, 1.0, 0.01)
SETTINGS = [
    {"target": target, "one_sided": one_sided, "reduction": reduction, "weight": weight}
    for (target, one_sided), reduction, weight in itertools.product(
        [(1.0, False), (1.0, True), (0.0, False), (2.5, True)], ["mean", "sum"], [10.0]
    )
]


@dataclass
class Critic:
    """Layers of weights and biases, each followed by the activation of a slope; and samples."""

    x: Tensor
    weights: list[Tensor]
    biases: list[Tensor | None]
    slopes: list[float]

    def scores(self) -> Tensor:
        h = self.x
        for weight, bias, slope in zip(self.weights, self.biases, self.slopes, strict=True):
            z = linear(h, weight, bias)
            h = z if slope == 1 else leaky_relu(z, slope) if slope else z.relu()
        return h

    def gradient(self) -> Tensor:
        x = leaf(self.x)
        return torch.autograd.grad(Critic(x, self.weights, self.biases, self.slopes).scores().sum(), x)[0]

    def distance_from_kinks(self) -> float:
        """Of the activations, and of the norm at zero."""
        h, least = self.x, self.gradient().norm(dim=1).min().item()
        for weight, bias, slope in zip(self.weights, self.biases, self.slopes, strict=True):
            h = linear(h, weight, bias)
            if slope != 1:
                least = min(least, h.abs().min().item())
                h = torch.where(h > 0, h, slope * h)
        return least

    def arguments(self) -> tuple[Any, ...]:
        return self.x, self.weights, self.biases, self.slopes

    def to(self, dtype: torch.dtype) -> Critic:
        biases = [None if bias is None else bias.to(dtype) for bias in self.biases]
        return Critic(self.x.to(dtype), [weight.to(dtype) for weight in self.weights], biases, self.slopes)


@functools.cache
def drawn(B: int, sizes: tuple[int, ...], slopes: tuple[float, ...], biased: bool) -> Critic:
    for seed in itertools.count():
        shapes = [(out, n) for n, out in itertools.pairwise(sizes)]
        x = samples((B, sizes[0]), torch.float32, seed=seed)
        weights = [samples(s, torch.float32, seed=100 * at + seed) / s[1] ** 0.5 for at, s in enumerate(shapes, 1)]
        biases = [samples(s[:1], torch.float32, seed=seed + 50) if biased else None for s in shapes]
        critic = Critic(x, weights, biases, list(slopes)).to(torch.float64)
        if critic.distance_from_kinks() > 1e-5:
            return critic
    raise AssertionError


def draw(B: int, sizes: Sequence[int], dtype: torch.dtype, slopes: Sequence[float], biased: bool = True) -> Critic:
    """Off the kinks, on the other side of which a rounding would give other derivatives; of float32 numbers."""
    critic = drawn(B, tuple(sizes), tuple(slopes), biased).to(dtype)
    biases = [None if bias is None else bias.clone() for bias in critic.biases]
    return Critic(critic.x.clone(), [weight.clone() for weight in critic.weights], biases, critic.slopes)


def twice(critic: Critic, *, target: float, one_sided: bool, reduction: str, weight: float) -> list[Tensor]:
    """Value, norms and the weights' gradients as people compute them. The biases' gradients are zero or none."""
    biases = [None if bias is None else leaf(bias) for bias in critic.biases]
    critic = Critic(leaf(critic.x), [leaf(each) for each in critic.weights], biases, critic.slopes)
    (grad,) = torch.autograd.grad(critic.scores().sum(), critic.x, create_graph=True)
    value = weight * penalty(grad, target, one_sided, reduction)
    params = [*critic.weights, *[bias for bias in biases if bias is not None]]
    grads = torch.autograd.grad(value, params, allow_unused=True)
    depth = len(critic.weights)
    for grad_bias in grads[depth:]:
        assert grad_bias is None or not grad_bias.nan_to_num().any()
    return [value.detach(), grad.detach().double().norm(dim=1), *grads[:depth]]


def flat(results: tuple[Tensor, Tensor, list[Tensor]]) -> list[Tensor]:
    value, norms, grads = results
    return [value, norms, *grads]


def assert_parity(critic: Critic, settings: dict[str, Any], where: str) -> None:
    dtype = critic.x.dtype
    ours = flat(mlp_critic_loss(*critic.arguments(), **settings))
    plain, exact = twice(critic, **settings), twice(critic.to(torch.float64), **settings)
    assert [each.dtype for each in ours] == [dtype, torch.float64, *[dtype] * len(critic.weights)]
    names = ["value", "norms", *[f"gradient of weight {at}" for at in range(len(critic.weights))]]
    largest_penalty = settings["weight"] * (largest(exact[1]) + settings["target"]) ** 2
    for name, mine, theirs, best in zip(names, ours, plain, exact, strict=True):
        terms = largest(best)
        if name == "value":  # a difference of norms and target
            terms = largest_penalty * (len(critic.x) if settings["reduction"] == "sum" else 1)
        terms *= PER_LAYER[dtype] * len(critic.weights)
        assert_as_good_as_torch(mine.to(dtype), theirs.to(dtype), best, f"{name} of {where}", terms)


@pytest.mark.parity
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.parametrize("dtype", DTYPES)
def test_as_good_as_differentiating_twice(backend: str, dtype: torch.dtype, biased: bool) -> None:
    slopes, settings = itertools.cycle(SLOPES), itertools.cycle(SETTINGS)
    for B, sizes in CRITICS:
        for chosen in itertools.islice(settings, 3):
            each = [*[next(slopes) for _ in sizes[2:]], next(slopes) or 0.5]  # a sample without a gradient is a kink
            critic = draw(B, sizes, dtype, each, biased)
            assert_parity(critic, chosen, f"{B}, {sizes}, {each}, {chosen}")
        next(slopes)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_every_setting(backend: str, dtype: torch.dtype, settings: dict[str, Any]) -> None:
    assert_parity(draw(19, (6, 20, 9, 1), dtype, [0.0, 0.2, 1.0]), settings, str(settings))


@pytest.mark.parametrize("dtype", DTYPES)
def test_value_alone_is_the_value_with_gradients(backend: str, dtype: torch.dtype) -> None:
    critic = draw(40, (5, 18, 1), dtype, [0.2, 1.0])
    value, norms, _ = mlp_critic_loss(*critic.arguments(), **SETTINGS[0])
    alone, norms_alone, grads = mlp_critic_loss(*critic.arguments(), **SETTINGS[0], needs_grads=False)
    assert_same_bits(alone, value)
    assert_same_bits(norms_alone, norms)
    assert grads == []


@pytest.mark.parametrize("dtype", DTYPES)
def test_same_bits_for_any_number_of_threads(
    native: None, one_and_two_threads: tuple[int, int], dtype: torch.dtype
) -> None:
    critic = draw(150, (40, 90, 70, 1), dtype, [0.2, 0.0, 1.0])
    results = []
    for threads in one_and_two_threads:
        torch.set_num_threads(threads)
        results.append(flat(mlp_critic_loss(*critic.arguments(), **SETTINGS[0])))
    for one, two in zip(*results, strict=True):
        assert_same_bits(one, two)


@pytest.mark.parametrize("layout", ["offset", "columns", "rows", "transposed", "expanded_batch"])
def test_layouts(native: None, layout: str) -> None:
    critic = draw(9, (7, 12, 1), torch.float32, [0.2, 1.0])
    x, weights = lay_out(critic.x, layout), [lay_out(weight, layout) for weight in critic.weights]
    biases = [lay_out(bias, "rows" if layout == "rows" else "offset") for bias in critic.biases]
    ours = flat(mlp_critic_loss(x, weights, biases, critic.slopes, **SETTINGS[0]))
    dense = [each.contiguous() for each in weights]
    for actual, same in zip(
        ours, flat(mlp_critic_loss(x.contiguous(), dense, critic.biases, critic.slopes, **SETTINGS[0]))
    ):
        assert_same_bits(actual, same, layout)
        assert actual.is_contiguous()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("target", [0.0, 1.0])
def test_zero_gradient(backend: str, dtype: torch.dtype, target: float) -> None:
    critic = draw(20, (4, 9, 1), dtype, [0.0, 1.0])
    settings = {"target": target, "one_sided": False, "reduction": "mean", "weight": 10.0}
    dead = Critic(critic.x, critic.weights, [torch.full_like(critic.biases[0], -1e3), None], critic.slopes)
    value, norms, grads = mlp_critic_loss(*dead.arguments(), **settings)
    assert value == 10 * target**2 and norms.eq(0).all()
    assert all([not grad.any() for grad in grads])


@pytest.mark.parametrize("slope", [0.0, 0.2])
@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_infinity_go_where_torch_has_them(backend: str, dtype: torch.dtype, bad: float, slope: float) -> None:
    """But for the weights' gradients where torch adds 0 times what is not finite: those are NaN only there."""
    for place in ("x", "weight 0", "weight 1", "bias 0"):
        critic = draw(20, (4, 9, 7, 1), dtype, [slope, slope, 1.0])
        name, at = (place + " 0").split()[:2]
        tensor = {"x": [critic.x], "weight": critic.weights, "bias": critic.biases}[name][int(at)]
        tensor.view(-1)[5] = bad
        value, norms, grads = mlp_critic_loss(*critic.arguments(), **SETTINGS[0])
        theirs, theirs_norms, *theirs_grads = twice(critic, **SETTINGS[0])
        exact_grads = twice(critic.to(torch.float64), **SETTINGS[0])[2:]
        assert torch.equal(norms.isnan(), theirs_norms.isnan()) and torch.equal(norms.isinf(), theirs_norms.isinf())
        assert value.isnan() == theirs.isnan() and value.isinf() == theirs.isinf()
        assert not place.startswith("weight") or slope == 0 or not value.isfinite()
        for grad, their_grad, exact in zip(grads, theirs_grads, exact_grads, strict=True):
            fine = their_grad.isfinite()
            terms = PER_LAYER[dtype] * len(critic.weights) * largest(exact[fine])
            assert_as_good_as_torch(grad[fine], their_grad[fine], exact[fine], f"{bad} in {place}", terms)


def test_no_samples(backend: str) -> None:
    critic = draw(1, (3, 4, 1), torch.float32, [0.2, 1.0])
    for reduction in ("mean", "sum"):
        settings = {**SETTINGS[0], "reduction": reduction}
        value, norms, grads = mlp_critic_loss(critic.x[:0], *critic.arguments()[1:], **settings)
        assert value.isnan() if reduction == "mean" else value == 0
        assert norms.shape == (0,) and all([not grad.any() for grad in grads])


def test_it_is_not_differentiable(backend: str) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    for place in ("x", "weights", "biases"):
        x, weights, biases = critic.x, list(critic.weights), list(critic.biases)
        if place == "x":
            x = leaf(x)
        elif place == "weights":
            weights[1] = leaf(weights[1])
        else:
            biases[0] = leaf(biases[0])
        with pytest.raises(ValueError, match="must be detached"):
            mlp_critic_loss(x, weights, biases, critic.slopes, **SETTINGS[0])
        with torch.no_grad():
            value, _, grads = mlp_critic_loss(x, weights, biases, critic.slopes, **SETTINGS[0])
        assert not value.requires_grad and not any([grad.requires_grad for grad in grads])


def operator_arguments(critic: Critic) -> tuple[Any, ...]:
    biases = [torch.empty(0, dtype=critic.x.dtype) if bias is None else bias for bias in critic.biases]
    return critic.x, critic.weights, biases, critic.slopes, 1.0, False, 1, 10.0


def test_the_operator_raises_in_backward(native: None) -> None:
    critic = draw(3, (3, 4, 1), torch.float32, [0.2, 1.0])
    operator = torch.ops.wgan_kernels.mlp_critic_loss.default
    for place in range(3):
        arguments = list(operator_arguments(critic))
        arguments[place] = leaf(critic.x) if place == 0 else [leaf(each) for each in arguments[place]]
        value, norms, scores, grads = operator(*arguments, True)
        for result in (value, scores, *grads):
            assert result.requires_grad
            with pytest.raises(NotImplementedError, match="mlp_critic_loss is not differentiable"):
                result.sum().backward(retain_graph=True)


def test_scores(native: None) -> None:
    for dtype in DTYPES:
        for B, sizes in CRITICS:
            critic = draw(B, sizes, dtype, [0.2] * (len(sizes) - 1))
            scores = torch.ops.wgan_kernels.mlp_critic_loss.default(*operator_arguments(critic), False)[2]
            exact = critic.to(torch.float64).scores()
            assert_as_good_as_torch(
                scores, critic.scores(), exact, f"{B}, {sizes}", PER_LAYER[dtype] * len(sizes) * largest(exact)
            )


def test_opcheck(native: None) -> None:
    for dtype, biased in itertools.product(DTYPES, (True, False)):
        critic = draw(5, (3, 4, 2), dtype, [0.2, 1.0], biased)
        for needs_grads in (True, False):
            arguments = (*operator_arguments(critic), needs_grads)
            results = torch.library.opcheck(torch.ops.wgan_kernels.mlp_critic_loss.default, arguments)
            assert set(results.values()) == {"SUCCESS"} and len(results) == 4


def test_compiled(backend: str) -> None:
    for dtype in DTYPES:
        critic = draw(20, (4, 9, 1), dtype, [0.2, 1.0], biased=False)
        compiled = compile_once(lambda *tensors: flat(mlp_critic_loss(*tensors, **SETTINGS[0])), backend)
        expected = flat(mlp_critic_loss(*critic.arguments(), **SETTINGS[0]))
        for actual, same in zip(compiled(*critic.arguments()), expected, strict=True):
            assert_same_by_another_route(actual, same, "compiled")


def test_the_operator_refuses_what_does_not_fit(native: None) -> None:
    operator = torch.ops.wgan_kernels.mlp_critic_loss.default
    x, weights, biases, slopes, *settings = operator_arguments(draw(3, (3, 4, 1), torch.float32, [0.2, 1.0]))
    for words, arguments in [
        ("x must be", (x[0], weights, biases, slopes)),
        ("a slope per layer", (x, weights, biases, slopes[:1])),
        ("a bias", (x, weights, biases[:1], slopes)),
        ("with a weight", (x, [], [], [])),
        (r"weights\[1\] must be \[out, 4\]", (x, [weights[0], weights[0]], biases, slopes)),
        (r"weights\[0\] must be", (x, [weights[0].double(), weights[1]], biases, slopes)),
        (r"biases\[0\] must be", (x, weights, [biases[0][:2], biases[1]], slopes)),
        (r"biases\[1\] must be", (x, weights, [biases[0], biases[1].double()], slopes)),
        ("float32 or float64", (x.half(), weights, biases, slopes)),
    ]:
        with pytest.raises(RuntimeError, match=words):
            operator(*arguments, *settings, True)
    with pytest.raises(RuntimeError, match="reduction must be 1 or 2"):
        operator(x, weights, biases, slopes, 1.0, False, 0, 10.0, True)


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
