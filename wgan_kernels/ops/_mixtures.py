"""What the operators over pairs of points are told of a kernel: codes and numbers, on the device of the points."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# As KernelKind in csrc/core/kernel_pairs.h.
_KIND_CODES = {
    "rbf": 0,
    "inverse_multiquadric": 1,
    "rational_quadratic": 2,
    "laplacian": 3,
    "matern32": 4,
    "matern52": 5,
    "energy": 6,
    "polynomial": 7,
}


def as_tensors(
    kinds: Sequence[str], params: Any, weights: Any, device: torch.device
) -> tuple[list[int], Tensor, Tensor]:
    """Codes of the kinds, params (C, Q), weights (3, C) or (B, 3, C), all on the device.

    weights: as they are, or of each block one number for all components, or one for each.
    """
    if not isinstance(params, Tensor):
        params = constant(tuple((param,) for param in params), device)
    if not isinstance(weights, Tensor):
        rows = (weight if isinstance(weight, tuple) else (weight,) * len(kinds) for weight in weights)
        weights = constant(tuple(rows), device)
    return [_KIND_CODES[kind] for kind in kinds], params.to(device), weights.to(device)


def of_products(codes: Sequence[int]) -> list[bool]:
    """Which of the kinds are functions of inner products."""
    return [code == _KIND_CODES["polynomial"] for code in codes]


def shapes_of(kinds: Sequence[str], shapes: Sequence[float] | None) -> list[float]:
    """1 for kinds that have none."""
    return [1.0] * len(kinds) if shapes is None else list(shapes)


def constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    """float64, on the device."""
    # A copy to another device waits for that device, and cannot be captured into a graph.
    if device.type == "cpu" or torch.compiler.is_compiling() or torch._C._len_torch_dispatch_stack() > 0:
        return torch.tensor(rows, dtype=torch.float64, device=device)
    tensor = _cached_constant(rows, device)
    keep_for_graphs(tensor)
    return tensor


@functools.lru_cache(maxsize=256)
def _cached_constant(rows: tuple[tuple[float, ...], ...], device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(rows, dtype=torch.float64, device=device)


# What graphs were captured with, and read again at every replay.
_captured: dict[int, Tensor] = {}


def keep_for_graphs(*constants: Tensor) -> None:
    if constants[0].is_cuda and torch.cuda.is_current_stream_capturing():
        for constant in constants:
            _captured[id(constant)] = constant


def allows_tf32(x: Tensor) -> bool:
    """Whether torch may multiply matrices of this tensor's float32 numbers in TF32."""
    return x.is_cuda and x.dtype == torch.float32 and _tf32_is_set()


def _tf32_is_set() -> bool:
    # Not the older allow_tf32, which raises once this is set; both names set what is read here.
    return torch.backends.cuda.matmul.fp32_precision == "tf32"


# As torch.compiler.assume_constant_result marks it: the compiler cannot trace the reading, but guards the setting.
_tf32_is_set._dynamo_marked_constant = True
