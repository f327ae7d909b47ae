"""What ranks of a process group exchange, differentiable in both directions any number of times.

A tensor is one of three things, and a derivative turns each into another: rows that a rank holds for all (own), the
same numbers on every rank (common), or terms whose sum over the ranks counts (shares).

    gather_rows: own -> common, used for shares    its derivative is scatter_sum
    scatter_sum: shares -> own                     its derivative is gather_rows
    spread:      common -> used for shares         its derivative is add
    add:         shares -> common                  its derivative is spread

Sums run over the ranks in their order: the same bits on all of them, by any back end. Every rank has to make the same
calls, in forward and in backward.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from ._autograd import eager_function

Counts = tuple[tuple[int, int], ...]  # rows of x and of y, by rank


def all_gathered(rows: Tensor, counts: list[int], group: Any) -> list[Tensor]:
    """(counts[r], ...) of each rank r; shapes differ in the number of rows only."""
    most = max(counts)
    padded = rows.new_zeros((most, *rows.shape[1:]))
    padded[: len(rows)] = rows
    pieces = [torch.empty_like(padded) for _ in counts]
    dist.all_gather(pieces, padded, group=group)
    return [piece[:count] for piece, count in zip(pieces, counts)]


def _gather_forward(ctx: Any, x: Tensor, y: Tensor, counts: Counts, dtype: torch.dtype, group: Any) -> Any:
    ctx.needed = ctx.needs_input_grad[:2]
    ctx.settings = tuple((n * ctx.needed[0], m * ctx.needed[1]) for n, m in counts), x.dtype, group
    pieces = all_gathered(torch.cat([x, y]), [sum(count) for count in counts], group)
    parts = [piece.split(count) for piece, count in zip(pieces, counts)]
    joined = [torch.cat(of_ranks).to(dtype) for of_ranks in zip(*parts)]
    ctx.mark_non_differentiable(*[rows for rows, needed in zip(joined, ctx.needed) if not needed])
    return tuple(joined)


def _gather_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    grads = [grad if needed else grad[:0] for grad, needed in zip(grads, ctx.needed)]
    own = _scatter_sum(*grads, *ctx.settings)
    return *[grad if needed else None for grad, needed in zip(own, ctx.needed)], None, None, None


def _scatter_forward(ctx: Any, x: Tensor, y: Tensor, counts: Counts, dtype: torch.dtype, group: Any) -> Any:
    ctx.settings = counts, x.dtype, group
    outgoing = torch.cat([part for pair in zip(*_by_rank(x, y, counts)) for part in pair])
    sizes, own = [sum(count) for count in counts], counts[dist.get_rank(group)]
    incoming = outgoing.new_empty((sum(own) * len(counts), *outgoing.shape[1:]))
    dist.all_to_all_single(incoming, outgoing, [sum(own)] * len(counts), sizes, group=group)
    first, *others = incoming.unflatten(0, (len(counts), sum(own)))
    total = first.double()
    for share in others:
        total += share
    return tuple(part.to(dtype) for part in total.split(own))


def _by_rank(x: Tensor, y: Tensor, counts: Counts) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    of_x, of_y = zip(*counts)
    return x.split(of_x), y.split(of_y)


def _scatter_backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
    return *gather_rows(*grads, *ctx.settings), None, None, None


def _add_forward(ctx: Any, shares: Tensor, exact: Tensor, group: Any) -> Tensor:
    ctx.group = group
    first, *others = all_gathered(exact[None], [1] * dist.get_world_size(group), group)
    return sum(others, first)[0].to(shares.dtype)


def _add_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return spread(grad, ctx.group), None, None


def _spread_forward(ctx: Any, common: Tensor, group: Any) -> Tensor:
    ctx.group = group
    return common.clone()


def _spread_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return add(grad, ctx.group), None


_gather = eager_function("gather_rows", _gather_forward, _gather_backward)
_scatter_sum = eager_function("scatter_sum", _scatter_forward, _scatter_backward)
_add = eager_function("add_shares", _add_forward, _add_backward)
_spread = eager_function("spread_common", _spread_forward, _spread_backward)


def gather_rows(x: Tensor, y: Tensor, counts: Counts, dtype: torch.dtype, group: Any) -> tuple[Tensor, Tensor]:
    """The rows of x and of y that all ranks hold, in the order of ranks, in the given dtype.

    Their derivatives are added up over the ranks in float64 before they take the dtype of x and y again.
    """
    return _gather(x, y, counts, dtype, group)


def add(shares: Tensor, group: Any, exact: Tensor | None = None) -> Tensor:
    """The sum over the ranks. exact: the same numbers with more digits, which are added up in place of shares."""
    return _add(shares, shares if exact is None else exact.detach(), group)


def spread(common: Tensor, group: Any) -> Tensor:
    """The same numbers, of which each rank makes its share of a result."""
    return _spread(common, group)
