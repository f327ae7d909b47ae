"""clip_weights_: many tensors in one launch, in place.

The launch reads the tensors' addresses from a table in device memory, which cannot be made inside a CUDA graph. A graph
captured with addresses that were not met before therefore gets one `clamp_` for each tensor: the same numbers in more
launches. One call before the capture avoids that.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ._launch import autotuned, device_of, float64_of, is_capturing, is_dense, words

BLOCK = 4096
_DTYPES = {
    torch.float64: tl.float64,
    torch.float32: tl.float32,
    torch.bfloat16: tl.bfloat16,
    torch.float16: tl.float16,
}


@autotuned([triton.Config({}, num_warps=warps) for warps in (4, 8)])
@triton.jit(do_not_specialize=["K", "low_high", "low_low", "high_high", "high_low"])
def clip_weights_kernel(
    table, K, low_high, low_low, high_high, high_low,
    DTYPE: tl.constexpr, TENSORS: tl.constexpr, ALIGNMENT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """table: [3, K] int64, of each tensor its address, its size, and its first block among those of all."""
    block = tl.program_id(0).to(tl.int64)
    k = tl.arange(0, TENSORS)
    tensor = tl.sum((tl.load(table + 2 * K + k, mask=k < K, other=0x7FFFFFFF) <= block).to(tl.int32), 0) - 1
    w = tl.multiple_of(tl.load(table + tensor).to(tl.pointer_type(DTYPE)), ALIGNMENT)
    at = (block - tl.load(table + 2 * K + tensor)) * BLOCK + tl.arange(0, BLOCK)
    inside = at < tl.load(table + K + tensor)
    value = tl.load(w + at, mask=inside)
    wide = value.to(tl.float64) if DTYPE == tl.float64 else value.to(tl.float32)
    low, high = float64_of(low_high, low_low).to(wide.dtype), float64_of(high_high, high_low).to(wide.dtype)
    # NaN compares with nothing and stays what it is.
    wide = tl.where(wide < low, low, wide)
    tl.store(w + at, tl.where(wide > high, high, wide).to(DTYPE), mask=inside)


def _make_table(device: torch.device, memory: tuple[tuple[int, ...], ...], block: int) -> tuple[Tensor, int]:
    """A kernel's table, on the device, of each tensor's addresses, size and first block; the number of blocks."""
    firsts, blocks = [], 0
    for *_, size in memory:
        firsts.append(blocks)
        blocks += triton.cdiv(size, block)
    rows = [*zip(*memory), firsts]
    return torch.tensor(rows, dtype=torch.int64, device="cpu").to(device), blocks


# The latest tables, and those that graphs were captured with and read again at every replay.
_tables: dict[Any, tuple[Tensor, int]] = {}
_captured: dict[Any, tuple[Tensor, int]] = {}
_MOST_TABLES = 64


def _table(
    device: torch.device, memory: tuple[tuple[int, ...], ...], capturing: bool, block: int = BLOCK
) -> tuple[Tensor, int] | None:
    """A table, made once; None where one would have to be made inside a graph, to which nothing can be copied."""
    key = device, memory
    found = _tables.get(key) or _captured.get(key)
    if capturing:
        return _captured.setdefault(key, found) if found else None
    if found is None:
        found = _make_table(device, memory, block)
        if len(_tables) >= _MOST_TABLES:
            del _tables[next(iter(_tables))]
        _tables[key] = found
    return found


@functools.lru_cache(maxsize=256)
def _rounded(dtype: torch.dtype, bound: float, sign: float) -> float:
    """A bound in the numbers that dtype has; beyond its largest, infinity. sign tells the zeros apart."""
    return torch.tensor(bound, dtype=torch.float64, device="cpu").to(dtype).item()


def _clip_dense(params: Sequence[Tensor], alignment: int, low: float, high: float) -> None:
    """params: dense, of one device and dtype, and of addresses that alignment divides."""
    device, dtype = params[0].device, params[0].dtype
    low, high = (_rounded(dtype, bound, math.copysign(1.0, bound)) for bound in (low, high))
    memory = tuple([(param.data_ptr(), param.numel()) for param in params])
    table = _table(device, memory, is_capturing())
    if table is None:
        for param in params:
            param.clamp_(low, high)
        return
    clip_weights_kernel[(table[1],)](
        table[0], len(memory), *words(low), *words(high), DTYPE=_DTYPES[dtype],
        TENSORS=triton.next_power_of_2(len(memory)), ALIGNMENT=alignment, BLOCK=BLOCK,
    )  # fmt: skip


# An operator that torch.compile does not look into: the table holds addresses, which a traced tensor does not have.
@functools.partial(torch.library.custom_op, "wgan_kernels::clip_weights__triton", mutates_args=("params",))
def clip_weights_(params: Sequence[Tensor], low: float, high: float) -> None:
    """params: any shapes and dtypes, one device."""
    copies = [(param, param.contiguous()) for param in params if not is_dense(param)]
    groups: dict[tuple[torch.dtype, int], list[Tensor]] = {}
    for param in (*(param for param in params if is_dense(param)), *(copy for _, copy in copies)):
        if param.numel() > 0:
            alignment = 16 if param.data_ptr() % 16 == 0 else param.element_size()
            groups.setdefault((param.dtype, alignment), []).append(param)
    with device_of(params[0]):
        for (_, alignment), group in groups.items():
            _clip_dense(group, alignment, low, high)
    for param, copy in copies:
        param.copy_(copy)
