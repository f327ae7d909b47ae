"""What every file of Triton kernels needs: how an operator is registered, tuned, and given its numbers."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

# Whether kernels run on CPU tensors, by Triton's interpreter (TRITON_INTERPRET=1 when triton is imported).
INTERPRETED = triton.knobs.runtime.interpret


def operator(function: Callable[..., Any]) -> Any:
    """Registers a launcher as `wgan_kernels::<its name>_triton`, into which torch.compile can see."""
    name = f"wgan_kernels::{function.__name__}_triton"
    if INTERPRETED:  # what the interpreter runs cannot be traced
        return torch.library.custom_op(name, function, mutates_args=())
    return torch.library.triton_op(name, function, mutates_args=())


def wrap_triton(kernel: Any) -> Any:
    """A kernel as a launcher has to call it, for the tracer to see."""
    return kernel if INTERPRETED else torch.library.wrap_triton(kernel)


def device_of(x: Tensor) -> Any:
    """Makes x's device the current one, on which Triton launches; a tracer, whose tensors have none, needs no such."""
    if not x.is_cuda or torch._C._len_torch_dispatch_stack() > 0 or x.device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(x.device)


def matmul_precision(points: Tensor, allow_tf32: bool) -> str:
    """Of products of float32: as accurate as float32, unless the points are float32 and TF32 is allowed for these."""
    return "tf32" if allow_tf32 and points.dtype == torch.float32 else "tf32x3"


def size_class(n: int) -> int:
    """What configurations are tuned for instead of n, so that few sizes are tuned: the next power of two."""
    # A traced size would be guarded by it in vain: Inductor tunes by itself.
    return triton.next_power_of_2(n) if isinstance(n, int) else 0


def feature_class(D: int) -> int:
    """size_class for the features of points, of which 16 are loaded at a time: 16, 32, 64, and 128 for all others."""
    return min(max(size_class(D), 16), 128)


def is_capturing() -> bool:
    """Whether what is launched now becomes part of a CUDA graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


class _Choices(dict):
    """What a tuner chose, by its keys. A graph that is being captured can time nothing: it gets what was chosen before,
    or else the first configuration, which is not written down."""

    def __init__(self, first: triton.Config) -> None:
        super().__init__()
        self._first = first

    def __contains__(self, key: Any) -> bool:
        return super().__contains__(key) or is_capturing()

    def __missing__(self, key: Any) -> triton.Config:
        return self._first


def autotuned(configs: Sequence[triton.Config], key: Sequence[str] = ()) -> Callable[[Any], Any]:
    """triton.autotune over configurations that all give the same bits, so that nobody sees which was taken; the first
    is for CUDA graphs that meet a kernel before it was tuned, and for the interpreter."""

    def tune(kernel: Any) -> Any:
        tuner = triton.autotune(list(configs[:1] if INTERPRETED else configs), list(key))(kernel)
        tuner.cache = _Choices(configs[0])
        return tuner

    return tune


def words(number: float) -> tuple[int, int]:
    """A float64 as two integers of 32 bits: a float would reach a kernel as float32."""
    low, high = struct.unpack("<ii", struct.pack("<d", number))
    return high, low


@triton.jit
def float64_of(high, low):
    """The float64 that `words` took apart."""
    high, low = tl.full([], high, tl.int64), tl.full([], low, tl.int64)
    return ((high << 32) | (low & 0xFFFFFFFF)).to(tl.float64, bitcast=True)


@triton.jit
def widened(x):
    """x in float64, by way of float32: the interpreter computes wrongly in bfloat16."""
    if x.dtype == tl.float64:
        return x
    else:
        return x.to(tl.float32).to(tl.float64)


@triton.jit
def narrowed(x, DTYPE: tl.constexpr):
    """x, float64, in DTYPE, by way of float32 as torch rounds."""
    if DTYPE == tl.float64:
        return x
    else:
        return x.to(tl.float32).to(DTYPE)


def is_dense(x: Tensor) -> bool:
    """Whether the elements fill one stretch of memory, each once, in whatever order."""
    expected = 1
    for size, stride in sorted(((n, s) for n, s in zip(x.shape, x.stride()) if n != 1), key=lambda pair: pair[1]):
        if stride != expected:
            return False
        expected *= size
    return True


def is_channels_last(x: Tensor) -> bool:
    return x.dim() > 1 and not x.is_contiguous() and x.movedim(1, -1).is_contiguous()


def ordered(x: Tensor, like: Tensor) -> Tensor:
    """x in the order of memory of `like`, which is dense; copied where it is in another."""
    return x if x.stride() == like.stride() else torch.empty_like(like).copy_(x)


def in_rows(first: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    """Tensors [B, D...] in one order of memory, in which every sample is a stretch of it; copied where they are not."""
    features = first.numel() // max(first.shape[0], 1)
    by_samples = first.shape[0] < 2 or first.stride(0) == features
    if not first.is_contiguous() and not (by_samples and is_dense(first)):
        first = first.contiguous()
    return first, *[ordered(other, first) for other in others]


def on_boundary(x: Tensor) -> Tensor:
    """x, copied where it begins off the boundaries that wide loads need: with narrow ones alone a kernel may add up in
    another order."""
    return x if x.storage_offset() * x.element_size() % 16 == 0 else x.clone()


def in_layout_of(like: Tensor, result: Tensor) -> Tensor:
    """The result, computed on rows, in the layout that torch.empty_like gives."""
    out = torch.empty_like(like)
    return result if result.stride() == out.stride() else out.copy_(result)
