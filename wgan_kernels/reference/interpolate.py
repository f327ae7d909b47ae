"""Points on the lines between real and generated samples (Gulrajani et al. 2017, Algorithm 1, line 6)."""

from __future__ import annotations

import torch
from torch import Tensor


def compute_dtype(dtype: torch.dtype) -> torch.dtype:
    """The dtype in which values of `dtype` are mixed: float64 stays, everything else goes through float32."""
    return torch.promote_types(dtype, torch.float32)


def draw_mix(real: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """One mixing number per sample, (B,), uniform on [0, 1), from torch's generator."""
    return torch.rand(real.shape[0], dtype=compute_dtype(real.dtype), device=real.device, generator=generator)


def interpolate(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    """mix * real + (1 - mix) * fake; real and fake are (B, ...), mix is (B,)."""
    mix = mix.reshape(-1, *[1] * (real.dim() - 1))
    mixed = mix * real.to(mix.dtype) + (1 - mix) * fake.to(mix.dtype)
    return mixed.to(real.dtype)
