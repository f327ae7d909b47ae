"""Runs of the trainer that are looked at along the way."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean

from torch import nn

from ..loop import Training
from ..objectives.base import Adversarial


def curves(training: Training, steps: int, every: int, look: Callable[[], dict[str, float]]) -> dict[str, list[float]]:
    """The step, the means of the losses since the last look, and what `look` returns, every few steps of the run."""
    found: dict[str, list[float]] = {}
    recent: list[dict[str, float]] = []
    while training.step_count < steps:
        recent.append(training.step())
        if training.step_count % every == 0:
            means = {name: fmean(each[name] for each in recent) for name in recent[0]}
            for name, value in {"step": training.step_count, **means, **look()}.items():
                found.setdefault(name, []).append(value)
            recent.clear()
    return found


def with_networks(how: Adversarial, **makers: Callable[..., nn.Module]) -> Adversarial:
    """The objective with another make_critic or make_generator than the architecture's."""
    usual = how.make_networks
    how.make_networks = lambda architecture, sizes: usual(architecture._replace(**makers), sizes)
    return how
