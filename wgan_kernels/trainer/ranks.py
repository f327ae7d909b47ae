"""Several processes as one: each computes with its rows of a batch, and all take the step of the joined batch.

With L_r what rank r descends, the parameters get the gradient of the mean of all L_r. So a loss that is a mean over
samples may be that of a rank's own rows, and whatever couples samples (a discrepancy, the statistics of a batch) is
taken of `joined` rows, which pass gradients back to the ranks that they came from.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn


@contextmanager
def process_group(device: str) -> Iterator[None]:
    """The group that torchrun's environment describes; none where there is no such environment, or a group already."""
    own = int(os.environ.get("WORLD_SIZE", 1)) > 1 and not dist.is_initialized()
    if own:
        if device == "cuda":
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield
    finally:
        if own:
            dist.destroy_process_group()


def leave(status: int) -> NoReturn:
    """Ends the process. Among several, past the interpreter's own way out, on which a thread of gloo may abort it."""
    if int(os.environ.get("WORLD_SIZE", 1)) == 1:
        sys.exit(status)
    os._exit(status)


def count() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def number() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def own(rows: Tensor) -> Tensor:
    """This rank's share of joined rows (B, ...)."""
    return rows.chunk(count())[number()]


def joined(rows: Tensor) -> Tensor:
    """The rows (B / ranks, ...) of all ranks, (B, ...)."""
    places = [rows if rank == number() else torch.zeros_like(rows) for rank in range(count())]
    return rows if count() == 1 else _Sum.apply(torch.cat(places))


class _Sum(torch.autograd.Function):
    """Over the ranks, whose gradients are summed likewise; as often differentiable as is needed."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return summed(values.clone())

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _Sum.apply(grad)


def average_gradients(params: Iterable[nn.Parameter]) -> None:
    if count() > 1:
        grads = [param.grad for param in params if param.grad is not None]
        nn.utils.vector_to_parameters(averaged(nn.utils.parameters_to_vector(grads)), grads)


def summed(values: Tensor) -> Tensor:
    """Over the ranks, in place."""
    if count() > 1:
        dist.all_reduce(values)
    return values


def averaged(values: Tensor) -> Tensor:
    return summed(values) / count()


def any_rank(wish: bool, device: torch.device) -> bool:
    """Whether one of the ranks wishes it: all get the same answer."""
    return summed(torch.tensor(float(wish), device=device)).item() > 0
