"""interpolate: points on the lines between real and generated samples."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import interpolate as reference
from . import _schemas
from ._autograd import differentiable


def _fake(real: Tensor, fake: Tensor, mix: Tensor) -> Tensor:
    return torch.empty_like(real)


def _setup_context(ctx: Any, inputs: tuple[Tensor, Tensor, Tensor], output: Tensor) -> None:
    real, fake, mix = inputs
    # The samples themselves are needed only for the derivative by the mixing numbers, which hardly anyone asks for.
    ctx.save_for_backward(mix, *((real, fake) if mix.requires_grad else ()))


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    mix, *samples = ctx.saved_tensors
    needs_real, needs_fake, _ = ctx.needs_input_grad
    wide = grad.to(mix.dtype)
    column = mix.reshape(-1, *[1] * (grad.dim() - 1))
    grad_real = (column * wide).to(grad.dtype) if needs_real else None
    grad_fake = ((1 - column) * wide).to(grad.dtype) if needs_fake else None
    if not samples:
        return grad_real, grad_fake, None
    real, fake = (sample.to(mix.dtype) for sample in samples)
    return grad_real, grad_fake, ((real - fake) * wide).unsqueeze(-1).flatten(1).sum(1)


def register(back_end: str = "") -> Callable[..., Any]:
    """Gives the operator of a back end ('' or '_triton') its fake kernel and derivative; returns how to call it."""
    torch.library.register_fake(f"wgan_kernels::interpolate{back_end}", _fake, lib=_schemas.LIBRARY)
    return differentiable(f"interpolate{back_end}", _setup_context, _backward)


_interpolate = register()


def interpolate(
    real: Tensor, fake: Tensor, mix: Tensor | None = None, *, generator: torch.Generator | None = None
) -> Tensor:
    """Points on the lines between real and generated samples: mix * real + (1 - mix) * fake.

    Args:
        real: (B, ...) samples of the data, float64, float32, bfloat16 or float16.
        fake: generated samples of the same shape and device. Dtypes are promoted as torch does.
        mix: (B,) or (B, 1, ...) mixing numbers, one per sample, of any floating dtype. None draws them uniformly
            from [0, 1) (float64 for float64 samples, else float32), as `torch.rand` does.
        generator: the torch generator to draw from; None takes torch's default.

    Returns:
        (B, ...) of the promoted dtype; mixed in float64 for float64 samples, else in float32, and rounded once.

    Raises:
        TypeError: an argument that is not a dense floating tensor; a generator together with a mix.
        ValueError: shapes or devices that differ; a mix without one number per sample.

    Differentiable any number of times by real, fake and mix. Deterministic for a given mix.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", Algorithm 1, line 6.
    """
    _checks.batched("real", real)
    _checks.batched("fake", fake)
    _checks.same_shape("real", real, "fake", fake)
    _checks.same_device("real", real, "fake", fake)
    if real.dtype != fake.dtype:
        dtype = torch.promote_types(real.dtype, fake.dtype)
        real, fake = real.to(dtype), fake.to(dtype)
    mix = mixing_numbers(real, mix, generator)
    if _backend.is_native(real, "interpolate"):
        return _interpolate(real, fake, mix)
    if _backend.is_triton(real):
        from . import _triton_operators

        return _triton_operators.interpolate(real, fake, mix)
    return reference.interpolate(real, fake, mix)


def mixing_numbers(real: Tensor, mix: Tensor | None, generator: torch.Generator | None) -> Tensor:
    """The mixing numbers as (B,) in the dtype that samples are mixed in."""
    if mix is None:
        return reference.draw_mix(real, generator)
    if generator is not None:
        raise TypeError("generator draws the mixing numbers and must be None when mix is given")
    _checks.floating("mix", mix)
    _checks.same_device("real", real, "mix", mix)
    batch = real.shape[0]
    if mix.shape[:1] != (batch,) or mix.numel() != batch:
        raise ValueError(
            f"mix must have one number per sample, shape ({batch},) or ({batch}, 1, ...), got {tuple(mix.shape)}"
        )
    return mix.reshape(batch).to(reference.compute_dtype(real.dtype))
