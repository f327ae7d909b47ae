"""Measures time and memory of mmd2 and its gradient against the number of points, for docs/mmd_pictures.py.

    OMP_PROC_BIND=true THP_MEM_ALLOC_ENABLE=1 python docs/mmd_scaling.py

in the repository, after `pip install --group bench` for pykeops. Nothing else should run; it takes about three minutes.
"""

from __future__ import annotations

import ctypes
import datetime
import functools
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))  # for what the benchmarks compare with

import wgan_kernels as wk  # noqa: E402
from benchmarks import peers  # noqa: E402
from benchmarks.bench_kernel_sums import eager, rbf  # noqa: E402

RESULTS = Path(__file__).with_suffix(".json")
FEATURES, BANDWIDTH = 8, 3.0
LARGEST_OF_PEERS = 16_384
SIZES = (64, 256, 1024, 4096, LARGEST_OF_PEERS, 32_768, 65_536, 100_000)
SECONDS = 0.5  # calls are repeated for so long


def contenders() -> dict[str, Callable[[Tensor, Tensor], Tensor] | None]:
    kernel = wk.kernels.RBF(BANDWIDTH)
    return {
        "wgan_kernels": lambda x, y: wk.mmd2(x, y, kernel),
        "eager PyTorch": functools.partial(eager, value_of=rbf(BANDWIDTH)),
        "KeOps": peers.keops_mmd2(BANDWIDTH),
    }


def with_gradient(function: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    value = function(x, y)
    return value, torch.autograd.grad(value, x)[0]


def samples(n: int) -> tuple[Tensor, Tensor]:
    x, y = torch.randn(2, n, FEATURES, generator=torch.Generator().manual_seed(n))
    return x.requires_grad_(), y + 0.3


def memory(name: str) -> int:
    """Bytes, of a line of what Linux says about this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def forget_peak() -> int | None:
    """Bytes that the process holds now, from which on its peak is counted; None where the system does not say."""
    # What the C library keeps of memory that was freed would be taken again unseen.
    getattr(ctypes.CDLL(None), "malloc_trim", lambda _: None)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
        return memory("VmRSS")
    except OSError:
        return None


def measured(call: Callable[[], object]) -> dict[str, float | None]:
    """Seconds, the median of calls, and the bytes that the first of them held at the worst beyond what was held."""
    before, times, end = forget_peak(), [], time.perf_counter() + SECONDS
    while not times or (time.perf_counter() < end and len(times) < 1000):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
        if len(times) == 1:
            held = None if before is None else max(memory("VmHWM") - before, 0)
    return {"seconds": statistics.median(times), "bytes": held}


def machine() -> dict[str, object]:
    model = platform.processor()
    if (info := Path("/proc/cpuinfo")).exists():
        model = next((line.split(":")[1].strip() for line in info.read_text().splitlines() if "model name" in line), "")
    return {
        "cpu": model,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "load": round(os.getloadavg()[0], 1),  # of before, so that 0 is a machine of its own
        "huge_pages": os.environ.get("THP_MEM_ALLOC_ENABLE") == "1",
        "date": datetime.date.today().isoformat(),
    }


def main() -> None:
    rows: list[dict[str, object]] = []
    conditions = machine()
    exact = [part.float() for part in with_gradient(contenders()["eager PyTorch"], *(z.double() for z in samples(512)))]
    for name, function in contenders().items():
        if function is None:
            print(f"{name} is not installed: pip install --group bench")
            continue
        for part, expected in zip(with_gradient(function, *samples(512)), exact):
            torch.testing.assert_close(part, expected, rtol=1e-3, atol=1e-6)
        for n in SIZES:
            if n > LARGEST_OF_PEERS and name != "wgan_kernels":
                continue
            x, y = samples(n)
            row = {"name": name, "n": n, **measured(functools.partial(with_gradient, function, x, y))}
            rows.append(row)
            held = "" if row["bytes"] is None else f"{row['bytes'] / 1e6:10.1f} MB"
            print(f"{name:15} n = {n:7,} {row['seconds']:10.4f} s {held}", flush=True)
    kept = {"features": FEATURES, "machine": conditions, "rows": rows}
    RESULTS.write_text(json.dumps(kept, indent=1) + "\n")


if __name__ == "__main__":
    main()
