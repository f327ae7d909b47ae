"""What this machine can do at best, measured in the run that the figures are compared in."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import cache

import torch


def best_time(run: Callable[[], object], seconds: float = 0.5) -> float:
    """Seconds of the fastest call among those that fit in `seconds`: the machine undisturbed."""
    run()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


@cache
def matrix_product_rate() -> float:
    """Floating-point operations per second of torch.mm on 1024 x 1024 float32."""
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    out = torch.empty_like(a)
    return 2 * 1024**3 / best_time(lambda: torch.mm(a, b, out=out))


@cache
def exponential_rate() -> float:
    """Exponentials per second of torch.exp on float32 in cache."""
    x = torch.randn(1 << 16)
    out = torch.empty_like(x)
    return x.numel() / best_time(lambda: torch.exp(x, out=out))


@cache
def copy_rate() -> float:
    """Bytes per second of a copy of 256 MB, read and written counted."""
    source = torch.randn(1 << 26)
    out = torch.empty_like(source)
    return 2 * source.numel() * 4 / best_time(lambda: out.copy_(source), 1.0)


def summary() -> str:
    huge_pages = os.environ.get("THP_MEM_ALLOC_ENABLE") == "1"
    return (
        f"floor of this run: copy {copy_rate() / 1e9:.0f} GB/s, "
        f"float32 matrix product {matrix_product_rate() / 1e9:.0f} GFLOP/s, "
        f"exponentials {exponential_rate() / 1e9:.2f} G/s; {torch.get_num_threads()} threads, "
        f"{'huge' if huge_pages else 'usual'} pages for PyTorch's memory"
    )
