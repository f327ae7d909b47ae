"""Run by torchrun with two processes: the gradients of one process on the joined batch, from half of it each."""

from __future__ import annotations

import os
import sys

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
from training_features import EAGER_FLOAT64, by_hand, critic, largest, loss


class CriticStep(nn.Module):
    """A critic's loss as one module: FSDP then gathers the parameters once for all that is done with them."""

    def __init__(self, critic: nn.Module) -> None:
        super().__init__()
        self.critic = critic

    def forward(self, part: slice, route: str) -> Tensor:
        return loss(self.critic, part, route=route)


def ddp(part: slice, route: str) -> list[Tensor]:
    model = DistributedDataParallel(critic())
    for _ in range(2):  # the reducer complains of a parameter without a gradient in the step that follows
        model.zero_grad()
        loss(model, part, route=route).backward()
    return [param.grad for param in model.parameters()]


def fsdp(part: slice, route: str) -> list[Tensor]:
    step = CriticStep(critic())
    fully_shard(step, mesh=init_device_mesh("cpu", (dist.get_world_size(),)))
    for _ in range(2):
        step.zero_grad()
        step(part, route).backward()
    return [param.grad.full_tensor() for param in step.parameters()]


def main(feature: str, route: str) -> None:
    dist.init_process_group("gloo")
    torch.set_num_threads(1)
    rank = dist.get_rank()
    found = {"ddp": ddp, "fsdp": fsdp}[feature](slice(4 * rank, 4 * rank + 4), route)
    for ours, theirs in zip(found, by_hand(), strict=True):
        assert largest(ours - theirs) <= EAGER_FLOAT64, f"rank {rank}"
    dist.barrier()
    dist.destroy_process_group()
    # Threads of gloo now and then outlive the interpreter, which aborts the process after all is done.
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
