"""interpolate: one read of both samples, one write."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import INTERPRETED, autotuned, device_of, in_layout_of, in_rows, operator, size_class, wrap_triton

# Every element is computed by itself, so that any configuration gives the same bits.
ELEMENTWISE = [
    triton.Config({"BLOCK": 2048}, num_warps=4),
    triton.Config({"BLOCK": 1024}, num_warps=4),
]


# The interpreter fuses nothing, and what AMD's GPUs do is another language.
_SPEAKS_PTX = tl.constexpr(not INTERPRETED and torch.version.hip is None)


@triton.jit
def rounded_product(a, b):
    """a * b, which is not fused with a sum that follows: that would give other bits than the reference has.

    In PTX, as the libdevice function for this makes zeros of subnormal numbers."""
    if _SPEAKS_PTX and a.dtype == tl.float64:
        return tl.inline_asm_elementwise("mul.rn.f64 $0, $1, $2;", "=d,d,d", [a, b], tl.float64, is_pure=True, pack=1)
    elif _SPEAKS_PTX:
        return tl.inline_asm_elementwise("mul.rn.f32 $0, $1, $2;", "=f,f,f", [a, b], tl.float32, is_pure=True, pack=1)
    else:
        return a * b


@autotuned(ELEMENTWISE, ["size_class"])
@triton.jit(do_not_specialize=["size_class"])
def interpolate_kernel(real, fake, mix, out, D, size_class, BLOCK: tl.constexpr):
    """real, fake, out: [B, D]; mix: [B], in the dtype that samples are mixed in."""
    blocks = tl.cdiv(D, BLOCK)
    row = tl.program_id(0) // blocks
    column = tl.program_id(0) % blocks * BLOCK + tl.arange(0, BLOCK)
    share = tl.load(mix + row)
    at, inside = row.to(tl.int64) * D + column, column < D
    a, b = tl.load(real + at, mask=inside).to(share.dtype), tl.load(fake + at, mask=inside).to(share.dtype)
    mixed = rounded_product(share, a) + rounded_product(1 - share, b)
    tl.store(out + at, mixed.to(out.dtype.element_ty), mask=inside)


@operator
def interpolate(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """real, fake: [B, D...]; mix: [B] -> [B, D...]"""
    rows, fake = in_rows(real, fake)
    out = torch.empty_like(rows)
    if out.numel() > 0:
        B, D = real.shape[0], real.numel() // real.shape[0]
        with device_of(real):
            wrap_triton(interpolate_kernel)[lambda meta: (B * triton.cdiv(D, meta["BLOCK"]),)](
                rows, fake, mix.contiguous(), out, D, size_class(D)
            )
    return in_layout_of(real, out)
