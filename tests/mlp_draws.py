"""Fully connected critics and samples for the tests of mlp_critic_loss."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from cases import leaf, penalty, samples
from torch import Tensor
from torch.nn.functional import leaky_relu, linear

DTYPES = (torch.float64, torch.float32)
SETTINGS = [
    {"target": target, "one_sided": one_sided, "reduction": reduction, "weight": weight}
    for (target, one_sided), reduction, weight in itertools.product(
        [(1.0, False), (1.0, True), (0.0, False), (2.5, True)], ["mean", "sum"], [10.0]
    )
]


@dataclass
class Critic:
    """Layers of weights and biases, each followed by the activation of a slope; and samples."""

    mixed: Tensor
    real: Tensor | None
    fake: Tensor | None
    weights: list[Tensor]
    biases: list[Tensor | None]
    slopes: list[float]

    def __call__(self, x: Tensor) -> Tensor:
        return self.scores(x)[0]

    def scores(self, x: Tensor) -> tuple[Tensor, float]:
        """And how close an activation comes to its kink."""
        h, least = x, float("inf")
        for weight, bias, slope in zip(self.weights, self.biases, self.slopes, strict=True):
            z = linear(h, weight, bias)
            h = z if slope == 1 else leaky_relu(z, slope) if slope else z.relu()
            least = least if slope == 1 or z.numel() == 0 else min(least, z.detach().abs().min().item())
        return h, least

    def gradient(self, create_graph: bool = False) -> Tensor:
        x = leaf(self.mixed)
        return torch.autograd.grad(self(x).sum(), x, create_graph=create_graph)[0]

    def distance_from_kinks(self) -> float:
        """Of the activations, and of the norm at zero."""
        kinks = [self.scores(x)[1] for x in (self.mixed, self.real, self.fake) if x is not None]
        return min(self.gradient().norm(dim=1).min().item(), *kinks)

    def arguments(self) -> tuple[Any, ...]:
        return self.mixed, self.real, self.fake, self.weights, self.biases, self.slopes

    def map(self, function: Any) -> Critic:
        """The same with function(tensor) for every tensor."""
        apply = lambda each: None if each is None else function(each)  # noqa: E731
        lists = [[apply(each) for each in tensors] for tensors in (self.weights, self.biases)]
        return Critic(apply(self.mixed), apply(self.real), apply(self.fake), *lists, self.slopes)

    def to(self, dtype: torch.dtype) -> Critic:
        return self.map(lambda each: each.to(dtype))


@functools.cache
def _drawn(B: int, sizes: tuple[int, ...], slopes: tuple[float, ...], biased: bool, judged: bool) -> Critic:
    for seed in itertools.count():
        shapes = [(out, n) for n, out in itertools.pairwise(sizes)]
        x = [samples((B, sizes[0]), torch.float32, seed=1000 * kind + seed) for kind in range(3)]
        weights = [samples(s, torch.float32, seed=100 * at + seed) / s[1] ** 0.5 for at, s in enumerate(shapes, 1)]
        biases = [samples(s[:1], torch.float32, seed=seed + 50) if biased else None for s in shapes]
        critic = Critic(x[0], *(x[1:] if judged else (None, None)), weights, biases, list(slopes)).to(torch.float64)
        if critic.distance_from_kinks() > 1e-5:
            return critic
    raise AssertionError


def draw(
    B: int,
    sizes: Sequence[int],
    dtype: torch.dtype,
    slopes: Sequence[float],
    biased: bool = True,
    judged: bool = True,
) -> Critic:
    """Off the kinks, on the other side of which a rounding would give other derivatives; of float32 numbers.

    judged: with real and fake samples too.
    """
    return _drawn(B, tuple(sizes), tuple(slopes), biased, judged).map(lambda each: each.to(dtype, copy=True))


def by_autograd(critic: Critic, *, target: float, one_sided: bool, reduction: str, weight: float) -> list[Tensor]:
    """Penalty, wasserstein, norms and the gradients of weights and biases as people compute them. Without real and fake
    samples the biases' gradients are left out: they are zero, or none."""
    critic = critic.map(leaf)
    grad = critic.gradient(create_graph=True)
    value, wasserstein = weight * penalty(grad, target, one_sided, reduction), grad.new_zeros(())
    if critic.real is not None:
        wasserstein = critic(critic.real).mean() - critic(critic.fake).mean()
    params = [*critic.weights, *[bias for bias in critic.biases if bias is not None]]
    grads = torch.autograd.grad(value - wasserstein, params, allow_unused=True)
    if critic.real is None:
        grads, of_biases = grads[: len(critic.weights)], grads[len(critic.weights) :]
        assert not any([grad is not None and grad.nan_to_num().any() for grad in of_biases])
    return [value.detach(), wasserstein.detach(), grad.detach().double().norm(dim=1), *grads]


def flat(terms: Any) -> list[Tensor]:
    """In the order of by_autograd."""
    return [*terms[:3], *terms.grad_weights, *[grad for grad in terms.grad_biases if grad.numel()]]
