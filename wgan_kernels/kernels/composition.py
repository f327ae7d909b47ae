"""What kernels are to the rest of the library: weighted sums of kernel functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from .. import _checks
from ..reference.kernel_sums import kernel_matrices


class Components(NamedTuple):
    """What a kernel is the weighted sum of: C kernel functions."""

    kinds: tuple[str, ...]  # names of the reference's formulas
    shapes: tuple[float, ...]  # their fixed numbers, 1 where a formula has none
    params: tuple[float, ...] | Tensor  # (C, 1) float64 where some are tensors
    weights: tuple[float, ...] | Tensor | None  # (C,) float64 where some are tensors; None where all are 1


class Kernel:
    """A weighted sum of kernel functions."""

    # Whether it is, or contains, a PyTorch function of the user's, which no operator can evaluate.
    is_custom = False

    def components(self, features: int) -> Components:
        """What it is made of, for points of so many features."""
        kept = self.__dict__.get("_kept")
        if kept is not None and kept[0] == features:
            return kept[1]
        made = self._made(features)
        is_fixed = not (isinstance(made.params, Tensor) or isinstance(made.weights, Tensor))
        if is_fixed and not torch.compiler.is_compiling():
            object.__setattr__(self, "_kept", (features, made))  # calls are many, and dataclasses here are frozen
        return made

    def _made(self, features: int) -> Components:
        raise NotImplementedError

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        """k(x_i, y_j) by the plain formulas, differentiable: (..., N, D), (..., M, D) -> (..., N, M) float64."""
        kinds, shapes, params, weights = self.components(x.shape[-1])
        if not isinstance(params, Tensor):
            params = [(x.new_full((), param, dtype=torch.float64),) for param in params]
        parts = kernel_matrices(x, y, kinds, shapes, params)
        return sum(parts if weights is None else [weight * part for weight, part in zip(weights, parts)])

    def __add__(self, other: object) -> Kernel:
        if not isinstance(other, Kernel):
            return NotImplemented
        return Sum((*_terms(self), *_terms(other)))

    def __mul__(self, weight: object) -> Kernel:
        if isinstance(weight, Kernel):
            raise TypeError("a kernel can be multiplied by a number or a tensor of one, not by another kernel")
        return Sum(((self, _weight(weight)),))

    __rmul__ = __mul__

    def __radd__(self, other: object) -> Kernel:
        return self if isinstance(other, int) and other == 0 else NotImplemented  # as sum() begins


@dataclass(frozen=True)
class Sum(Kernel):
    """What `+` and `*` make of kernels: (kernel, weight) for each."""

    terms: tuple[tuple[Kernel, float | Tensor], ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "is_custom", any(kernel.is_custom for kernel, _ in self.terms))

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        if not self.is_custom:
            return super().matrix(x, y)
        return sum(_times(weight, kernel.matrix(x, y)) for kernel, weight in self.terms)

    def _made(self, features: int) -> Components:
        parts = [(kernel.components(features), weight) for kernel, weight in self.terms]
        owns = [(1.0,) * len(part.kinds) if part.weights is None else part.weights for part, _ in parts]
        weights = [_times(weight, each) for (_, weight), own in zip(parts, owns) for each in own]
        params = [param for part, _ in parts for param in part.params]
        return Components(
            tuple(kind for part, _ in parts for kind in part.kinds),
            tuple(shape for part, _ in parts for shape in part.shapes),
            column(params),
            column(weights, 0),
        )


def _terms(kernel: Kernel) -> tuple[tuple[Kernel, float | Tensor], ...]:
    return kernel.terms if isinstance(kernel, Sum) else ((kernel, 1.0),)


def _weight(value: object) -> float | Tensor:
    if isinstance(value, Tensor):
        _checks.floating("a kernel's weight", value)
        if value.numel() != 1:
            raise ValueError(f"a kernel's weight must be one number, got a tensor of shape {tuple(value.shape)}")
        return value
    return _checks.non_negative("a kernel's weight", value)


def _times(weight: float | Tensor, other: float | Tensor) -> float | Tensor:
    return (weight.reshape(()).double() if isinstance(weight, Tensor) else weight) * other


def column(values: Sequence[float | Tensor], dim: int = 1) -> tuple[float, ...] | Tensor:
    """The numbers as they are, or a tensor of them if there is one among them."""
    tensors = [value for value in values if isinstance(value, Tensor)]
    if not tensors:
        return tuple(values)
    like = tensors[0]
    made = [
        v.double().reshape(()) if isinstance(v, Tensor) else like.new_full((), v, dtype=torch.float64) for v in values
    ]
    return torch.stack(made).reshape((-1, 1) if dim else (-1,))
