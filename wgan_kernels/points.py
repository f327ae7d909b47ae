"""Where a gradient penalty takes the critic's gradient."""

from __future__ import annotations

import torch
from torch import Tensor

from . import _backend, _checks
from .ops.interpolate import interpolate, mixing_numbers

POINTS = ("mixed", "real", "fake", "dragan")


def penalised_points(
    real: Tensor | None,
    fake: Tensor | None,
    *,
    points: str,
    mix: Tensor | None,
    noise: Tensor | None,
    generator: torch.Generator | None,
    pac: int,
    detach: bool,
) -> Tensor:
    """(B, ...) samples that require grad; the arguments are those of gradient_penalty."""
    _checks.choice("points", points, POINTS)
    if noise is not None and points != "dragan":
        raise ValueError(f"noise must be None with points={points!r}: only 'dragan' adds noise")
    if points in ("real", "fake"):
        x = _unmixed(points, real if points == "real" else fake, mix, generator, pac, detach)
    else:
        if detach:
            real, fake, mix, noise = (v.detach() if isinstance(v, Tensor) else v for v in (real, fake, mix, noise))
        if points == "dragan":
            # Checked and drawn before the noise is: a call that is refused draws nothing.
            _check_noise(real, noise)
            mix = mixing_numbers(in_groups("real", real, pac), mix, generator if mix is None else None)
            fake, generator = _noisy(real, noise, generator), None
        elif pac > 1:
            _checks.batched("real", real)
            _checks.batched("fake", fake)
            _checks.same_shape("real", real, "fake", fake)
        if pac > 1:
            real, fake = in_groups("real", real, pac), in_groups("fake", fake, pac)
        x = interpolate(real, fake, mix, generator=generator)
        x = x.flatten(0, 1) if pac > 1 else x
    return x if x.requires_grad or _backend.is_transformed() else x.requires_grad_()


def _unmixed(
    points: str, x: Tensor | None, mix: Tensor | None, generator: torch.Generator | None, pac: int, detach: bool
) -> Tensor:
    if mix is not None or generator is not None:
        raise ValueError(f"mix and generator must be None with points={points!r}, where nothing is mixed")
    _checks.batched(points, x)
    in_groups(points, x, pac)
    # Of its own: a critic may write into its input. And not made under inference mode, which autograd takes no part in.
    return x.detach().clone() if detach or not x.requires_grad else x


def in_groups(name: str, x: Tensor | None, pac: int) -> Tensor:
    """(B / pac, pac, ...), or x itself for pac 1."""
    _checks.batched(name, x)
    if x.shape[0] % pac:
        raise ValueError(f"{name} must hold a multiple of pac={pac} samples, got {x.shape[0]}")
    return x.reshape(x.shape[0] // pac, pac, *x.shape[1:]) if pac > 1 else x


def _check_noise(real: Tensor | None, noise: Tensor | None) -> None:
    _checks.batched("real", real)
    if noise is not None:
        _checks.floating("noise", noise)
        _checks.same_shape("real", real, "noise", noise)
        _checks.same_device("real", real, "noise", noise)


def _noisy(real: Tensor, noise: Tensor | None, generator: torch.Generator | None) -> Tensor:
    if noise is None:
        uniform = torch.rand(real.shape, dtype=real.dtype, device=real.device, generator=generator)
        noise = 0.5 * real.std() * uniform
    return real + noise
