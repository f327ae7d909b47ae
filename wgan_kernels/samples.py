"""What the statistics of two samples accept as samples."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from . import _checks
from .kernels import Kernel


def check_kernel(kernel: Any, name: str = "kernel") -> None:
    if not isinstance(kernel, Kernel):
        raise TypeError(f"{name} must be one of wgan_kernels.kernels, got {type(kernel).__name__}")


def numbers_of_points(x: Tensor, y: Tensor, least: int) -> tuple[int, int]:
    """N and M, of points (N, D) and (M, D), or of as many problems (B, N, D) and (B, M, D), that fit together."""
    try:  # one look at everything, as the checks with all their words cost as much as a small sweep
        *problems, n, d = x.shape
        *others, m, e = y.shape
        dtype = x.dtype
        if (
            dtype is y.dtype
            and dtype in _checks.FLOATING_DTYPES
            and d == e
            and n >= least
            and m >= least
            and problems == others
            and len(problems) < 2
            and x.layout is torch.strided
            and y.layout is torch.strided
            and (x.is_cpu and y.is_cpu or x.device == y.device)
        ):
            return n, m
    except (AttributeError, TypeError, ValueError):
        pass
    check_points({"x": x, "y": y}, least={"x": least, "y": least}, batched=True)
    return x.size(-2), y.size(-2)


def check_points(points: dict[str, Tensor], least: dict[str, int] | None = None, *, batched: bool = False) -> None:
    """least: how many points there have to be, by name; batched: a batch of problems will do."""
    first, *_ = points
    for name, each in points.items():
        _checks.floating(name, each)
        if each.dim() != 2 and not (batched and each.dim() == 3):
            shapes = "(number, features)" + " or (problems, number, features)" * batched
            hint = f": flatten each sample, {name}.flatten(1)" if each.dim() > 2 else ""
            raise ValueError(f"{name} must be points of shape {shapes}, got {tuple(each.shape)}{hint}")
        wanted = (least or {}).get(name, 0)
        if each.size(-2) < wanted:
            raise ValueError(f"{name} must hold at least {wanted} points, got {each.size(-2)}")
    for name, each in points.items():
        like = points[first]
        if each.dtype != like.dtype:
            raise TypeError(f"{name} must have the dtype of {first}, {like.dtype}, got {each.dtype}")
        _checks.same_device(first, like, name, each)
        if each.size(-1) != like.size(-1):
            raise ValueError(f"{name} must have as many features as {first}, {like.size(-1)}, got {each.size(-1)}")
        if each.shape[:-2] != like.shape[:-2]:
            wanted, came = (tuple(each.shape[:-2]) for each in (like, each))
            raise ValueError(f"{name} must hold as many problems as {first}, {wanted}, got {came}")


def check_weights(name: str, weights: Any, points_name: str, points: Tensor) -> None:
    """One number for each point."""
    _checks.floating(name, weights)
    if weights.shape != points.shape[:-1]:
        wanted, came = tuple(points.shape[:-1]), tuple(weights.shape)
        raise ValueError(f"{name} must hold a number for each point of {points_name}, {wanted}, got {came}")
    _checks.same_device(points_name, points, name, weights)
