"""The sums by channel that the derivatives of group_norm's parameters are: in parts, in a fixed order."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, is_channels_last, ordered, widened, wrap_triton

ROWS, COLUMNS = 32, 32  # positions and channels that are added up at a time
MOST_PARTS = 64
_SCALARS = ["rows", "C", "S", "channels", "groups", "parts", "part_size"]


@autotuned([triton.Config({}, num_warps=4)])
@triton.jit(do_not_specialize=_SCALARS)
def group_norm_params_kernel(
    g, x, u, mean, rstd, means, sums, rows, C, S, channels, groups, parts, part_size,
    LAST: tl.constexpr, SECOND: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """sums: [2, parts, C] float64: of g xhat and g, or of g S u, over a part of the rows, the samples' positions."""
    blocks = tl.cdiv(C, COLUMNS)
    part = tl.program_id(0) // blocks
    c = tl.program_id(0) % blocks * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    by_weight, by_bias = tl.zeros([ROWS, COLUMNS], tl.float64), tl.zeros([ROWS, COLUMNS], tl.float64)
    for begin in range(0, tl.minimum(rows - part * part_size, part_size), ROWS):
        i = part * part_size + begin + tl.arange(0, ROWS)[:, None]
        inside = (begin + tl.arange(0, ROWS)[:, None] < part_size) & (i < rows) & (c < C)
        b = i // S
        at = i.to(tl.int64) * C + c if LAST else (b.to(tl.int64) * C + c) * S + i % S
        row = b * groups + c // channels
        r = widened(tl.load(rstd + row, mask=inside, other=0.0))
        centre = widened(tl.load(mean + row, mask=inside, other=0.0))
        xhat = (widened(tl.load(x + at, mask=inside, other=0.0)) - centre) * r
        xhat -= tl.load(means + row * 3, mask=inside, other=0.0)
        of_y = widened(tl.load(g + at, mask=inside, other=0.0))
        if SECOND:
            s = widened(tl.load(u + at, mask=inside, other=0.0)) - tl.load(means + row * 3 + 1, mask=inside, other=0.0)
            s -= xhat * tl.load(means + row * 3 + 2, mask=inside, other=0.0)
            by_weight += tl.where(inside, of_y * r * s, 0.0)
        else:
            by_weight += tl.where(inside, of_y * xhat, 0.0)
            by_bias += of_y
    to = sums + part.to(tl.int64) * C + c
    tl.store(to, tl.sum(by_weight, 0)[None, :], mask=c < C)
    tl.store(to + parts.to(tl.int64) * C, tl.sum(by_bias, 0)[None, :], mask=c < C)


class Grouped:
    """x as kernels walk it, and its sizes."""

    def __init__(self, x: Tensor, groups: int, layer_dims: int) -> None:
        first = x.dim() - layer_dims
        self.C = x.shape[first:].numel() if layer_dims else x.shape[1]
        self.B = x.shape[:first].numel() if layer_dims else x.shape[0]
        self.S = 1 if layer_dims else x.shape[2:].numel()
        self.groups, self.channels = groups, self.C // groups
        self.last = not layer_dims and is_channels_last(x)
        self.x = x if self.last else x.contiguous()

    @property
    def sizes(self) -> tuple[int, ...]:
        return self.channels * self.S, self.C, self.S, self.channels, self.groups

    @property
    def rows(self) -> int:
        return self.B * self.groups

    def like(self, tensor: Tensor) -> Tensor:
        return ordered(tensor, self.x)

    def new(self) -> Tensor:
        return torch.empty_like(self.x)

    def new_means(self) -> Tensor:
        return self.x.new_empty((self.rows, 3), dtype=torch.float64)


def param_gradients(
    of: Grouped, g: Tensor, u: Tensor | None, mean: Tensor, rstd: Tensor, means: Tensor, params: list[Tensor | None],
    needed: bool,
) -> list[Tensor]:  # fmt: skip
    """The gradients of parameters; no elements where they are not there or not needed."""
    wide = torch.promote_types(of.x.dtype, torch.float32)
    if not needed or all([param is None for param in params]):
        return [of.x.new_empty((0,), dtype=wide if param is None else param.dtype) for param in params]
    rows = of.B * of.S
    part_size = max(2 * ROWS, -(-rows // MOST_PARTS))
    parts = -(-rows // part_size)
    sums = of.x.new_empty((2, parts, of.C), dtype=torch.float64)
    if sums.numel() > 0:
        wrap_triton(group_norm_params_kernel)[(parts * triton.cdiv(of.C, COLUMNS),)](
            g, of.x, g if u is None else u, mean, rstd, means, sums, rows, *of.sizes[1:], parts, part_size,
            LAST=of.last or of.S == 1, SECOND=u is not None, ROWS=ROWS, COLUMNS=COLUMNS,
        )  # fmt: skip
    totals = sums.sum(1)
    return [
        of.x.new_empty((0,), dtype=wide) if param is None else total.to(param.dtype, copy=True).view(param.shape)
        for param, total in zip(params, totals)
    ]
