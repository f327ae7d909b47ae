"""clip_weights_ against the loop that people write and against torch's foreach functions."""

from __future__ import annotations

import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import contest

BOUND = 0.01


def loop(params: list[Tensor]) -> None:
    with torch.no_grad():
        for param in params:
            param.clamp_(-BOUND, BOUND)


def foreach(params: list[Tensor]) -> None:
    with torch.no_grad():
        torch._foreach_clamp_min_(params, -BOUND)
        torch._foreach_clamp_max_(params, BOUND)


def clipped_by(clip, params: list[Tensor]) -> list[Tensor]:
    copies = [param.detach().clone().requires_grad_() for param in params]
    clip(copies)
    return copies


def bench_sixty_small_tensors(record) -> None:
    params = [torch.randn(size, requires_grad=True) for _ in range(20) for size in (64, 256, 16)]
    peers = {
        contest.OURS: lambda tensors: wk.clip_weights_(tensors, BOUND),
        "a loop of clamp_": loop,
        "_foreach_clamp_min_/max_": foreach,
    }
    row = contest.hold(
        "clip_weights_, 60 small tensors",
        {name: lambda clip=clip: clip(params) for name, clip in peers.items()},
        check=lambda: {name: clipped_by(clip, params) for name, clip in peers.items()},
        tolerance=0.0,
        bars={"a loop of clamp_": 2.5, "_foreach_clamp_min_/max_": 1.8},
        rounds=1000,
    )
    record(row, lambda: wk.clip_weights_(params, BOUND))


def bench_64m_floats(record) -> None:
    weights = torch.randn(64 << 20)
    row = contest.hold(
        "clip_weights_, 64 M floats",
        {
            contest.OURS: lambda: wk.clip_weights_(weights, BOUND),
            "one clamp_": lambda: weights.clamp_(-BOUND, BOUND),
        },
        check=lambda: {
            contest.OURS: clipped_by(lambda tensors: wk.clip_weights_(tensors, BOUND), [weights]),
            "one clamp_": clipped_by(loop, [weights]),
        },
        tolerance=0.0,
        bars={"one clamp_": 0.9},
        rounds=15,
    )
    record(row, lambda: wk.clip_weights_(weights, BOUND))
