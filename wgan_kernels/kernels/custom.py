"""Kernels that are PyTorch functions of the user's."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .. import _checks
from ..reference.kernel_sums import centred, squared_distances
from .composition import Components, Kernel

_OF = ("squared_distance", "product")


@dataclass(frozen=True)
class Custom(Kernel):
    """k(x, y) = function(s) for a PyTorch function, computed for some rows of pairs at a time, not by fused kernels.

    Args:
        function: of s, a float64 tensor, to the kernel values, a tensor of the same shape: elementwise.
        slope, bend: its first and second derivative by s, likewise; both or none. Without them autograd differentiates
            the function.
        of: what s is: 'squared_distance', ||x - y||^2, or 'product', x.y.

    Tensors that the functions close over get gradients where they require them; they must not change between forward
    and backward, which computes blocks of many points again. Without slope and bend any order of differentiation is
    that of the function; with them derivatives are right up to the third, which is autograd's of bend. Memory grows
    with the number of points and not of pairs, except in a backward that is itself recorded.
    """

    function: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor] | None = None
    bend: Callable[[Tensor], Tensor] | None = None
    of: str = "squared_distance"
    is_custom = True

    def __post_init__(self) -> None:
        for name, value in (("function", self.function), ("slope", self.slope), ("bend", self.bend)):
            if not callable(value) and (name == "function" or value is not None):
                raise TypeError(f"{name} must be a function of a tensor, got {type(value).__name__}")
        if (self.slope is None) != (self.bend is None):
            raise ValueError("slope and bend must be given together, or neither: derivatives of both orders are taken")
        _checks.choice("of", self.of, _OF)

    def _made(self, features: int) -> Components:
        raise TypeError("a Custom kernel is a PyTorch function, which the operators cannot evaluate")

    def matrix(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = x.double(), y.double()
        s = x @ y.mT if self.of == "product" else squared_distances(*centred(x, y))
        if self.slope is None or not (torch.is_grad_enabled() and s.requires_grad):
            return _of_shape(s, self.function(s))
        # The function's Taylor series at s, of which every term but the first is 0: its derivatives are the given ones,
        # and the third is that of bend.
        here = s.detach()
        step, bend = s - here, self.bend(here)
        bend = bend + (self.bend(s) - bend) / 3
        return _of_shape(s, self.function(here)) + step * self.slope(here) + step**2 / 2 * bend


def _of_shape(s: Tensor, values: Tensor) -> Tensor:
    if values.shape != s.shape:
        wanted, came = tuple(s.shape), tuple(values.shape)
        raise ValueError(f"a kernel function must return a value for each pair of points, {wanted}, got {came}")
    return values
