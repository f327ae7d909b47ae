"""The squared maximum mean discrepancy of samples that are spread over the ranks of a process group."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from . import _checks
from .kernels import Kernel
from .ops import _collectives
from .pair_sums import share_of_sum
from .progress import shown
from .samples import check_kernel, check_points


def mmd2(
    x: Tensor,
    y: Tensor,
    kernel: Kernel,
    *,
    estimator: str = "unbiased",
    group: dist.ProcessGroup,
    progress: bool = False,
) -> Tensor:
    """mmd2 of the rows of all ranks together, of which each rank passes its own.

    Args:
        x: (N_r, D) points of this rank r, float64, float32, bfloat16 or float16; none where N_r is 0.
        y: (M_r, D) points of the same dtype and device; D and the dtype are those of all ranks.
        kernel: one of `wgan_kernels.kernels`, the same on all ranks.
        estimator: 'unbiased' or 'biased'.
        group: a process group of torch.distributed that this process is a member of, such as dist.group.WORLD.
        progress: shows a bar on rank 0.

    Returns:
        () float64 for float64 input, else float32: the same bits on all ranks, those of the joined rows to rounding.

    Raises:
        TypeError, ValueError: as mmd2 does; on all ranks if on one, and where D, dtypes or settings of ranks differ.

    Differentiable twice. The value is one number that all ranks hold: use it alike on all of them, and call backward or
    autograd.grad on all of them. The gradient by a rank's rows is that of the value, not divided by the number of
    ranks; a loss made of such gradients counts as the sum of what the ranks make of theirs. The gradient by parameters
    of the kernel is complete on every rank. Gradients of a network that made the rows are to be added up over the
    ranks: DistributedDataParallel averages them, so multiply the value by the number of ranks there.
    Each rank holds all points, O((N + M) D), and sums an equal share of the pairs; sums have a fixed order.
    Not for torch.compile. Runs with gloo; with NCCL it is untested.
    """
    check_group(group)
    calls = agree("mmd2", _call(x, y, kernel, estimator, progress), _COMMON, group)
    counts = tuple((call.n, call.m) for call in calls)
    N, M = (sum(rows) for rows in zip(*counts))
    biased = estimator == "biased"
    least = 1 if biased else 2
    for name, points in (("x", N), ("y", M)):
        if points < least:
            raise ValueError(f"{name} must hold at least {least} points on all ranks together, got {points}")
    pairs_x, pairs_y = (N * N, M * M) if biased else (N * (N - 1), M * (M - 1))
    weights = (1 / pairs_x, 1 / pairs_y, -2 / (N * M))
    # Where one rank has to take part in a backward pass all have to, those without rows among them.
    x = on_the_tape(x, any(call.needs_x for call in calls))
    y = on_the_tape(y, any(call.needs_y for call in calls))
    all_x, all_y = _collectives.gather_rows(x, y, counts, torch.promote_types(x.dtype, torch.float32), group)
    rank = dist.get_rank(group)
    with shown("mmd2") if progress and rank == 0 else nullcontext():
        share, exact = share_of_sum(
            all_x, all_y, kernel, weights, rank, len(calls),
            diagonal=biased, spread=lambda parameter: _collectives.spread(parameter, group),
        )  # fmt: skip
    return _collectives.add(share, group, exact)


def gather(rows: Tensor, group: dist.ProcessGroup | None = None) -> list[Tensor]:
    """The rows of each rank, (N_r, ...); a rank that has none may hold an empty tensor of any dtype and dimensions.

    Not differentiable: it is how metrics share their states.
    """
    group = dist.group.WORLD if group is None else group
    shapes: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(shapes, (tuple(rows.shape), rows.dtype), group=group)
    kinds = {(shape[1:], dtype) for shape, dtype in shapes if shape and shape[0] > 0}
    if not kinds:
        return [rows] * len(shapes)
    if len(kinds) > 1:
        raise ValueError(f"ranks must share rows of one shape and dtype, got {sorted(kinds, key=str)}")
    ((shape, dtype),) = kinds
    rows = rows.detach() if rows.numel() else rows.new_empty((0, *shape), dtype=dtype)
    counts = [each[0] if each else 0 for each, _ in shapes]
    return _collectives.all_gathered(rows, counts, group)


class _Call(NamedTuple):
    """What a rank was called with, as far as others have to know."""

    n: int
    m: int
    D: int
    dtype: torch.dtype
    estimator: str
    kernel: str
    grad_mode: bool
    learned: bool
    needs_x: bool
    needs_y: bool


def check_group(group: Any) -> None:
    if not (dist.is_available() and dist.is_initialized()):
        raise ValueError("group needs torch.distributed: call torch.distributed.init_process_group first")
    if not isinstance(group, dist.ProcessGroup):
        hint = ": this process is not a member" if group == dist.GroupMember.NON_GROUP_MEMBER else ""
        raise TypeError(f"group must be a process group of torch.distributed, got {type(group).__name__}{hint}")


def _call(x: Any, y: Any, kernel: Any, estimator: Any, progress: bool) -> _Call | Exception:
    """What to tell the other ranks, or what is wrong here."""
    try:
        check_points({"x": x, "y": y})
        check_kernel(kernel)
        if kernel.is_custom:
            raise TypeError("kernel must be one that the operators know with group, got a Custom one")
        _checks.choice("estimator", estimator, ("unbiased", "biased"))
        if progress:
            shown("mmd2")  # raises where there are no bars
    except (TypeError, ValueError, ImportError) as error:
        return error
    grad_mode = torch.is_grad_enabled()
    _, _, *numbers = kernel.components(x.size(1))
    needs = [grad_mode and any(isinstance(t, Tensor) and t.requires_grad for t in of) for of in (numbers, [x], [y])]
    return _Call(len(x), len(y), x.size(1), x.dtype, estimator, _description(kernel, x.size(1)), grad_mode, *needs)


def _description(kernel: Kernel, features: int) -> str:
    """To compare kernels by: those of ranks may differ in their numbers where each chose them for its own rows."""
    kinds, shapes, *numbers = kernel.components(features)
    params, weights = (each.tolist() if isinstance(each, Tensor) else each for each in numbers)
    return f"{', '.join(kinds)} with {params}, shapes {shapes} and weights {weights}"


# Of a call, what has to be the same on all ranks, and in which words it is refused.
_COMMON = {
    "D": (ValueError, "x and y must have as many features on all ranks"),
    "dtype": (TypeError, "x and y must have the same dtype on all ranks"),
    "estimator": (ValueError, "estimator must be the same on all ranks"),
    "kernel": (ValueError, "kernel must be the same on all ranks"),
    "grad_mode": (ValueError, "all ranks must record gradients or none"),
    "learned": (ValueError, "the kernel's numbers must require gradients on all ranks or none"),
}


def agree(name: str, own: Any, common: dict[str, tuple[type[Exception], str]], group: dist.ProcessGroup) -> list[Any]:
    """What all ranks were called with, and this one with `own`; what is wrong on one of them, where `own` is an error,
    raises on all, where others would wait for it. common: of its fields, what has to be the same on all ranks."""
    calls: list[Any] = [None] * dist.get_world_size(group)
    dist.all_gather_object(calls, f"{type(own).__name__}: {own}" if isinstance(own, Exception) else own, group=group)
    if isinstance(own, Exception):
        raise own
    for rank, call in enumerate(calls):
        if isinstance(call, str):
            raise ValueError(f"{name} was refused on rank {rank}: {call}")
    for field, (error, words) in common.items():
        values = [getattr(call, field) for call in calls]
        for rank, value in enumerate(values):
            if value != values[0]:
                raise error(f"{words}, got {values[0]} on rank 0 and {value} on rank {rank}")
    return calls


def on_the_tape(rows: Tensor, needed: bool) -> Tensor:
    return rows.detach().requires_grad_() if needed and not rows.requires_grad else rows
