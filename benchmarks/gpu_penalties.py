"""Gradient penalties on a GPU: the value with its gradients by the parameters, critic included."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn

import wgan_kernels as wk
from benchmarks import gpu_timing as timing
from benchmarks.bench_closed_form import dcgan, eager
from benchmarks.bench_mlp_critic_loss import mlp
from benchmarks.gpu_cases import Case, relative, working

# Critic, shape of the samples, and the bar against eager.
CRITICS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], float]] = {
    "MLP 64-256-256-256-1, batch 64": (lambda: mlp((64, 256, 256, 256, 1)), (64, 64), 5.0),
    "MLP 2-512-512-512-1, batch 256": (lambda: mlp((2, 512, 512, 512, 1)), (256, 2), 5.0),
    "DCGAN 64, 3x64x64, batch 64": (lambda: dcgan(64, 3, 64), (64, 3, 64, 64), 2.0),
}


def gradients(penalty: Callable[[nn.Module, Tensor], Tensor], critic: nn.Module, x: Tensor) -> Tensor:
    """Those by all weights as one vector. The biases' are zero, or none."""
    weights = [param for param in critic.parameters() if param.dim() > 1]
    return torch.cat([grad.flatten() for grad in torch.autograd.grad(penalty(critic, x), weights)])


def ours(critic: nn.Module, x: Tensor) -> Tensor:
    return wk.gradient_penalty(critic, x, None, points="real")


def gradient_penalties() -> Iterator[Case]:
    for name, (make, shape, bar) in CRITICS.items():
        critic, x = make().cuda(), torch.randn(shape, device="cuda")
        exact = gradients(eager, copy.deepcopy(critic).double(), x.double())
        contenders = {
            "native": lambda critic=critic, x=x: gradients(ours, critic, x),
            "triton": lambda critic=critic, x=x: gradients(ours, critic, x),
            "eager": lambda critic=critic, x=x: gradients(eager, critic, x),
        }
        for how in ("calls", "graph"):
            case = Case(
                f"gradient_penalty and its gradients, {name}", how, bars={"eager": bar} if how == "calls" else {}
            )
            right = working(case, contenders, lambda found, exact=exact: relative(found, exact))
            if how == "graph":
                right = {each: timing.as_graph(each, call) for each, call in right.items()}
            case.seconds = timing.in_turns(right, rounds=20, times=3)
            yield case
