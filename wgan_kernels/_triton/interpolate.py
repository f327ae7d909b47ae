"""interpolate: one read of both samples, one write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, device_of, in_layout_of, in_rows, operator, wrap_triton

# Every element is computed by itself, so that any configuration gives the same bits.
ELEMENTWISE = [
    triton.Config({"BLOCK": 2048}, num_warps=4),
    triton.Config({"BLOCK": 1024}, num_warps=4),
]


@autotuned(ELEMENTWISE, ["D"])
@triton.jit
def interpolate_kernel(real, fake, mix, out, D, BLOCK: tl.constexpr):
    """real, fake, out: [B, D]; mix: [B], in the dtype that samples are mixed in."""
    blocks = tl.cdiv(D, BLOCK)
    row = tl.program_id(0) // blocks
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    share = tl.load(mix + row)
    at, inside = row.to(tl.int64) * D + column, column < D
    a, b = tl.load(real + at, mask=inside).to(share.dtype), tl.load(fake + at, mask=inside).to(share.dtype)
    tl.store(out + at, (share * a + (1 - share) * b).to(out.dtype.element_ty), mask=inside)


@operator
def interpolate(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """real, fake: [B, D...]; mix: [B] -> [B, D...]"""
    rows, fake = in_rows(real, fake)
    out = torch.empty_like(rows)
    if out.numel() > 0:
        B, D = real.shape[0], real.numel() // real.shape[0]
        with device_of(real):
            wrap_triton(interpolate_kernel)[lambda meta: (B * triton.cdiv(D, meta["BLOCK"]),)](
                rows, fake, mix.contiguous(), out, D
            )
    return in_layout_of(real, out)
