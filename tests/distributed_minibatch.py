"""Run by torchrun with four processes: minibatch discrimination among samples that are spread over ranks, beside that
of the joined samples.

Each case runs on all four ranks, and then in two groups of two at the same time; rank 0 prints the names of those that
are done. A rank on which one fails ends, and torchrun the others.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist
from cases import samples
from tolerances import assert_same_by_another_route, assert_within_one_ulp
from torch import Tensor, nn
from torchrun_cases import run

import wgan_kernels as wk
from wgan_kernels.nn import MinibatchDiscrimination

ROWS = (5, 0, 9, 3)  # samples by rank


class Spread:
    """A layer for the joined samples and one for those of this rank, and both, as leaves."""

    def __init__(self, group: Any, dtype: torch.dtype = torch.float64) -> None:
        ranks, rank = dist.get_process_group_ranks(group), dist.get_rank(group)
        counts = [ROWS[each] for each in ranks]
        self.own = slice(sum(counts[:rank]), sum(counts[: rank + 1]))
        self.all_x = samples((sum(counts), 6), dtype).requires_grad_()
        self.x = self.all_x.detach()[self.own].clone().requires_grad_()
        torch.manual_seed(3)  # the same weight on all ranks
        self.joined = MinibatchDiscrimination(6, 4, 3, dtype=dtype)
        self.layer = MinibatchDiscrimination(6, 4, 3, dtype=dtype, group=group)
        self.layer.load_state_dict(self.joined.state_dict())


def added_up(grad: Tensor, group: Any) -> Tensor:
    """As DistributedDataParallel does with gradients of parameters, but for the division."""
    total = grad.clone()
    dist.all_reduce(total, group=group)
    return total


def value_and_gradient(group: Any) -> None:
    spread = Spread(group)
    up = samples((len(spread.all_x), 10), torch.float64, seed=5)
    y, expected = spread.layer(spread.x), spread.joined(spread.all_x)
    assert_same_by_another_route(y.detach(), expected.detach()[spread.own])
    y.backward(up[spread.own])
    expected.backward(up)
    assert_same_by_another_route(spread.x.grad, spread.all_x.grad[spread.own])
    assert_same_by_another_route(added_up(spread.layer.weight.grad, group), spread.joined.weight.grad)


def second_derivative(group: Any) -> None:
    """Of a loss that is a sum over the ranks."""
    spread, found = Spread(group), []
    for layer, x in ((spread.layer, spread.x), (spread.joined, spread.all_x)):
        (first,) = torch.autograd.grad(layer(x.tanh()).square().sum(), x, create_graph=True)
        found.append(torch.autograd.grad(first.square().sum(), (x, layer.weight)))
    (ours, by_weight), (exact, exact_by_weight) = found
    assert_same_by_another_route(ours, exact[spread.own])
    assert_same_by_another_route(added_up(by_weight, group), exact_by_weight)


def dtypes(group: Any) -> None:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        spread = Spread(group, dtype)
        y, expected = spread.layer(spread.x), spread.joined(spread.all_x)
        assert y.dtype == dtype
        check = assert_same_by_another_route if dtype is torch.float32 else assert_within_one_ulp
        check(y.detach(), expected.detach()[spread.own])
        y.sum().backward()
        assert spread.x.grad.dtype == dtype and spread.x.grad.isfinite().all()


def penalty(group: Any) -> None:
    """By every route, of the gradient of the sum of all ranks' scores; ranks without samples take no part in one."""
    ranks = [rank for rank in dist.get_process_group_ranks(group) if ROWS[rank]]
    if len(ranks) < dist.get_world_size(group):
        return
    for route in ("auto", "double_backward"):
        spread = Spread(group)
        critics = []
        for layer in (spread.layer, spread.joined):
            torch.manual_seed(4)
            critics.append(nn.Sequential(nn.Linear(6, 6), nn.Tanh(), layer, nn.Linear(10, 1)).double())
        counts = [ROWS[rank] for rank in ranks]
        x = spread.x.detach()
        ours = wk.gradient_penalty(critics[0], x, x, points="real", reduction="sum", route=route)
        x = spread.all_x.detach()
        expected = wk.gradient_penalty(critics[1], x, x, points="real", reduction="sum", route="double_backward")
        assert_same_by_another_route(added_up(ours.detach(), group), expected.detach())
        ours.backward()
        expected.backward()
        for param, joined in zip(critics[0].parameters(), critics[1].parameters(), strict=True):
            if joined.grad is not None:
                assert_same_by_another_route(added_up(param.grad, group), joined.grad, f"{route}, {counts}")


def gradients_by_some(group: Any) -> None:
    """On the first rank of the group alone; the others have to take part all the same."""
    spread, rank = Spread(group), dist.get_rank(group)
    spread.layer.weight.requires_grad_(False)
    x = spread.x.detach().requires_grad_(rank == 0)
    y = spread.layer(x)
    assert y.requires_grad
    y.sum().backward()
    spread.joined(spread.all_x).sum().backward()
    if rank == 0:
        assert_same_by_another_route(x.grad, spread.all_x.grad[spread.own])
    with torch.no_grad():
        assert not spread.layer(spread.x).requires_grad


def copies(group: Any) -> None:
    """Of a critic, as averaged weights are kept in: with weights of their own, among the same ranks."""
    spread = Spread(group)
    critic = nn.Sequential(nn.Tanh(), spread.layer)
    for copied in (copy.deepcopy(critic), torch.optim.swa_utils.AveragedModel(critic).module):
        assert copied[1].group is group and copied[1].weight is not spread.layer.weight
        assert torch.equal(copied(spread.x), critic(spread.x))


def errors(group: Any) -> None:
    """What is wrong on one rank, or does not fit together, raises on all, and the next call works."""
    rank, last = dist.get_rank(group), dist.get_world_size(group) - 1
    odd, x = rank == last, torch.zeros(3, 2)
    layer = MinibatchDiscrimination(2, 4, 3, group=group)

    def refused(error: type[Exception], words: str, x: Any = x, layer: nn.Module = layer) -> None:
        try:
            layer(x)
        except error as found:
            assert words in str(found), found
        else:
            raise AssertionError(f"nothing was refused: {words}")

    here = "x must have the shape" if odd else f"MinibatchDiscrimination was refused on rank {last}: ValueError: x must"
    refused(ValueError, here, torch.zeros(3, 5) if odd else x)
    refused(ValueError, "kernel_dim must be the same", layer=MinibatchDiscrimination(2, 4, 3 + odd, group=group))
    refused(ValueError, "out_features must be the same", layer=MinibatchDiscrimination(2, 4 + odd, 3, group=group))
    refused(TypeError, "the same dtype on all ranks", x.double(), layer=layer.double()) if odd else refused(
        TypeError, f"got torch.float32 on rank 0 and torch.float64 on rank {last}"
    )
    layer.float()
    with torch.set_grad_enabled(odd):
        refused(ValueError, "all ranks must record gradients or none")
    assert layer(x).shape == (3, 6)


CASES: dict[str, Callable[[Any], None]] = {
    case.__name__: case
    for case in (value_and_gradient, second_derivative, dtypes, penalty, gradients_by_some, copies, errors)
}


if __name__ == "__main__":
    run(CASES)
