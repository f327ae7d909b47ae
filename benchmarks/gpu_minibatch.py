"""Layers that look at the whole batch, on a GPU."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor

import wgan_kernels as wk
from benchmarks import gpu_timing as timing
from benchmarks.bench_minibatch_discrimination import Eager
from benchmarks.gpu_cases import Case, relative, working


def minibatch_discrimination() -> Iterator[Case]:
    B, F, K = 256, 64, 16
    x = torch.randn(B, 128, device="cuda", requires_grad=True)
    layer = wk.nn.MinibatchDiscrimination(128, F, K, device="cuda")
    eager = Eager(layer)

    def step(layer: torch.nn.Module, x: Tensor) -> Tensor:
        return torch.autograd.grad(layer(x).square().sum(), x)[0]

    wide = copy.deepcopy(eager).double()
    exact = step(wide, x.detach().double().requires_grad_())
    contenders = {
        "native": lambda: step(layer, x),
        "triton": lambda: step(layer, x),
        "eager": lambda: step(eager, x),
    }
    for how in ("calls", "graph"):
        bars = {"eager": 4.0} if how == "graph" else {}
        case = Case(f"MinibatchDiscrimination forward + backward, batch {B}, {F} features of {K}", how, bars=bars)
        right = working(case, contenders, lambda grad: relative(grad, exact))
        if how == "graph":
            right = {name: timing.as_graph(name, call) for name, call in right.items()}
        case.seconds = timing.in_turns(right, rounds=20, times=5)
        yield case
