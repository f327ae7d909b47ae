"""Times on a GPU: contenders in turns, as calls or as replays of a graph; and what the GPU can do at best."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Callable, Mapping

import torch

import wgan_kernels as wk

BACK_ENDS = ("native", "triton")


def under(name: str, call: Callable[[], object]) -> object:
    """The call, on the back end that the contender is named after, if it is one of ours."""
    if name not in BACK_ENDS:
        return call()
    with wk.use_backend(name):
        return call()


def timed(call: Callable[[], object], times: int) -> float:
    """Seconds of each of several calls one after the other, host and device together, when the device was idle."""
    torch.cuda.synchronize()
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(times):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / times


def in_turns(contenders: Mapping[str, Callable[[], object]], rounds: int, times: int) -> dict[str, float]:
    """Median seconds of a call of each contender."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 3):
        for name, call in contenders.items():
            elapsed = under(name, functools.partial(timed, call, times))
            if round_ >= 3:
                seconds[name].append(elapsed)
    return {name: statistics.median(values) for name, values in seconds.items()}


def as_graph(name: str, call: Callable[[], object]) -> Callable[[], object]:
    """The call as a graph to replay: the time of the device, without that of the host."""

    def capture() -> torch.cuda.CUDAGraph:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            graph.results = call()  # kept, so that what is written has a place of its own
        return graph

    return under(name, capture).replay


def best_time(call: Callable[[], object], times: int = 5, rounds: int = 12) -> float:
    call()
    return min(timed(call, times) for _ in range(rounds))


@functools.cache
def copy_rate() -> float:
    """Bytes per second of a copy of 1 GB, read and written counted."""
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda").random_()
    target = torch.empty_like(source)
    return 2 * source.numel() / best_time(lambda: target.copy_(source))


@functools.cache
def matrix_product_rate(precision: str) -> float:
    """Floating-point operations per second of torch.mm on 8192 x 8192 float32, in 'ieee' or 'tf32'."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = precision
    try:
        a, b = torch.randn(2, 8192, 8192, device="cuda")
        out = torch.empty_like(a)
        return 2 * 8192**3 / best_time(lambda: torch.mm(a, b, out=out))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


@functools.cache
def exponential_rate() -> float:
    """Exponentials per second: of a kernel that does nothing else where Triton is installed, else of torch.exp."""
    x = torch.rand(1 << 22, device="cuda")
    try:
        from benchmarks.gpu_exponentials import REPEATS, repeated_exponentials
    except ImportError:
        out = torch.empty_like(x)
        return x.numel() / best_time(lambda: torch.exp(x, out=out))
    return REPEATS * x.numel() / best_time(lambda: repeated_exponentials(x))
