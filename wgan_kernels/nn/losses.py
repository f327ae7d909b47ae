"""Modules over the functions of the library, for code that configures its losses once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..kernels import Kernel
from ..mmd import mmd2
from ..penalty import gradient_penalty


class GradientPenalty(nn.Module):
    """`gradient_penalty` with its settings kept: `GradientPenalty(weight=10.0)(critic, real, fake)`.

    Args:
        settings: any keyword argument of `wgan_kernels.gradient_penalty`; those of a call go before them.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__()
        self.settings = settings

    def forward(
        self, critic: Callable[..., Any], real: Tensor, fake: Tensor, **settings: Any
    ) -> Tensor | tuple[Tensor, Tensor]:
        return gradient_penalty(critic, real, fake, **{**self.settings, **settings})

    def extra_repr(self) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.settings.items())


class MMDLoss(nn.Module):
    """`mmd2` with its kernel and estimator kept: `MMDLoss(kernels.RBF(1.0))(x, y)`.

    Args:
        kernel, estimator, block_size: those of `wgan_kernels.mmd2`; weights of points come with a call. Tensors that a
            learned kernel holds are no parameters of this module: they are for whoever made them to register.
    """

    def __init__(self, kernel: Kernel, *, estimator: str = "unbiased", block_size: int | None = None) -> None:
        super().__init__()
        self.kernel = kernel
        self.estimator = estimator
        self.block_size = block_size

    def forward(
        self, x: Tensor, y: Tensor, *, x_weights: Tensor | None = None, y_weights: Tensor | None = None
    ) -> Tensor:
        settings = {"estimator": self.estimator, "block_size": self.block_size}
        return mmd2(x, y, self.kernel, x_weights=x_weights, y_weights=y_weights, **settings)

    def extra_repr(self) -> str:
        size = "" if self.block_size is None else f", block_size={self.block_size}"
        return f"{self.kernel}, estimator={self.estimator!r}{size}"
