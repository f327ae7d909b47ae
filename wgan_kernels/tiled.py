"""Sums over pairs of points in plain PyTorch, some rows of the kernel matrix at a time.

For kernels that are PyTorch functions, and for sums that no operator takes. `matrix` is always a function of points
(R, D) and (M, D) to their kernel values (R, M), differentiable by whatever it is made of. A block of rows is computed
again in the backward, so that memory grows with the number of points and not of pairs; only a backward that is itself
recorded (create_graph=True) keeps what it computed. Where `matrix` meets a point and itself, its derivatives have to be
finite, whether or not these pairs are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

Matrix = Callable[[Tensor, Tensor], Tensor]

# Of kernel values. From this size on the C library gives freed memory back at once; smaller blocks would leave the heap
# in pieces, as nodes of graphs that live on are made between them.
_BYTES_PER_BLOCK = 1 << 26


class Moments(NamedTuple):
    """Of the kernel matrices of x, of y, and of x with y, the former two without their diagonals; float64."""

    xx_rows: Tensor  # (N,) sum_{j!=i} k(x_i, x_j)
    yy_rows: Tensor  # (M,)
    xy_rows: Tensor  # (N,) sum_j k(x_i, y_j)
    xy_columns: Tensor  # (M,) sum_i k(x_i, y_j)
    xx_squares: Tensor  # () sum_{i!=j} k(x_i, x_j)^2
    yy_squares: Tensor  # ()
    xy_squares: Tensor  # () sum_{i,j} k(x_i, y_j)^2


def kernel_sums(x: Tensor, y: Tensor, matrix: Matrix, *, diagonal: bool) -> Tensor:
    """sum_{i!=j} k(x_i, x_j), sum_{i!=j} k(y_i, y_j), sum_{i,j} k(x_i, y_j); diagonal adds i = j.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D) -> (3,) or (B, 3) float64.
    """
    if x.dim() == 3:
        each = [kernel_sums(*points, matrix, diagonal=diagonal) for points in zip(x, y)]
        return torch.stack(each) if each else x.new_zeros((0, 3), dtype=torch.float64)

    def total(a: Tensor, b: Tensor, diagonal: bool) -> Tensor:
        parts = _by_blocks(a, b, matrix, diagonal, lambda k: k.sum())
        return torch.stack([a.new_zeros((), dtype=torch.float64), *parts]).sum()

    return torch.stack([total(x, x, diagonal), total(y, y, diagonal), total(x, y, True)])


def matvec(x: Tensor, y: Tensor, v: Tensor, matrix: Matrix, *, diagonal: bool = True) -> Tensor:
    """out_ip = sum_j k(x_i, y_j) v_jp, without i = j unless diagonal.

    x: (N, D) or (B, N, D); y: (M, D) or (B, M, D); v: (M, P) or (B, M, P) -> (N, P) or (B, N, P), float64 for float64
    points, else float32.
    """
    wide = torch.promote_types(x.dtype, torch.float32)
    if x.dim() == 3:
        each = [matvec(*inputs, matrix, diagonal=diagonal) for inputs in zip(x, y, v)]
        return torch.stack(each) if each else v.new_zeros((0, x.shape[1], v.shape[2]), dtype=wide)
    wide_v = v.double()
    parts = list(_by_blocks(x, y, matrix, diagonal, lambda k: k @ wide_v))
    return (torch.cat(parts) if parts else v.new_zeros((0, v.shape[1]))).to(wide)


def moments(x: Tensor, y: Tensor, matrix: Matrix) -> Moments:
    """x: (N, D); y: (M, D)."""
    xx_rows, _, xx_squares = _moments(x, x, matrix, diagonal=False)
    yy_rows, _, yy_squares = _moments(y, y, matrix, diagonal=False)
    xy_rows, xy_columns, xy_squares = _moments(x, y, matrix, diagonal=True)
    return Moments(xx_rows, yy_rows, xy_rows, xy_columns, xx_squares, yy_squares, xy_squares)


def _moments(x: Tensor, y: Tensor, matrix: Matrix, *, diagonal: bool) -> tuple[Tensor, Tensor, Tensor]:
    rows, columns, squares = [], y.new_zeros(len(y), dtype=torch.float64), y.new_zeros((), dtype=torch.float64)
    for part in _by_blocks(x, y, matrix, diagonal, lambda k: (k.sum(1), k.sum(0), k.square().sum())):
        rows.append(part[0])
        columns, squares = columns + part[1], squares + part[2]
    return torch.cat(rows), columns, squares


def _by_blocks(x: Tensor, y: Tensor, matrix: Matrix, diagonal: bool, reduce: Callable[[Tensor], Any]) -> Iterator[Any]:
    """`reduce` of one block of rows of the kernel matrix after the other, in float64."""

    def evaluate(begin: int, end: int) -> Any:
        k = matrix(x[begin:end], y)
        k = k.double()
        if not diagonal:
            k = torch.diagonal_scatter(k, torch.zeros_like(k.diagonal(begin)), begin)
        return reduce(k)

    size = max(_BYTES_PER_BLOCK // (8 * max(len(y), 1)), 1)
    for begin in range(0, len(x), size):
        end = min(begin + size, len(x))
        if size < len(x) and torch.is_grad_enabled():
            # Nothing is drawn at random here. The other kind of checkpoints has no second derivative.
            yield checkpoint(evaluate, begin, end, use_reentrant=False, preserve_rng_state=False)
        else:
            yield evaluate(begin, end)
