"""Leaky rectifiers on fused kernels: forward, backward and double backward are one pass each, and keep one tensor."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _checks
from ..ops.bias_leaky_relu import bias_leaky_relu


class BiasLeakyReLU(nn.Module):
    """y = clamp(gain * leaky_relu(x + bias, negative_slope), -clamp, clamp), the end of a layer that has no bias.

    `nn.Conv2d(3, 64, 4, bias=False), BiasLeakyReLU(64, 0.2)` computes what `nn.Conv2d(3, 64, 4), nn.LeakyReLU(0.2)`
    does, and is initialised with a bias of 0.

    Args:
        num_features: channels of the input, its second dimension.
        negative_slope: of the rectifier below 0, at least 0.
        gain: what its result is multiplied by, more than 0; 2 ** 0.5 about keeps the variance of normal numbers.
        clamp: the largest magnitude of the result, more than 0, or None.
        bias: whether there is a bias, a parameter of shape (num_features,).
        device, dtype: of the bias.

    x: (B, num_features, ...), float64, float32, bfloat16 or float16, contiguous or channels_last, which the result is
    too. A bias is of the dtype of x or, beside half floats, float32. Raises TypeError and ValueError for what does not
    fit.
    Differentiable any number of times, and piecewise linear: the derivative at 0 is that below it, and 0 at the bounds.
    A graph keeps the result alone. The same input gives the same bits for any number of threads.
    Source: Karras et al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", appendix B.
    """

    def __init__(
        self,
        num_features: int,
        negative_slope: float = 0.01,
        gain: float = 1.0,
        clamp: float | None = None,
        bias: bool = True,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.num_features = _checks.positive_integer("num_features", num_features)
        self.negative_slope, self.gain = _checks.rectifier(negative_slope, gain, clamp)
        self.clamp = clamp
        _checks.flag("bias", bias)
        self.bias = nn.Parameter(torch.empty(num_features, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, input: Tensor) -> Tensor:
        return bias_leaky_relu(input, self.bias, self.negative_slope, self.gain, self.clamp)

    def extra_repr(self) -> str:
        bounds = "" if self.clamp is None else f", clamp={self.clamp}"
        settings = f"negative_slope={self.negative_slope}, gain={self.gain}{bounds}"
        return f"{self.num_features}, {settings}, bias={self.bias is not None}"


class LeakyReLU(nn.LeakyReLU):
    """`torch.nn.LeakyReLU` that keeps its result rather than its input, which the next layer keeps too.

    Args:
        negative_slope, inplace: those of `torch.nn.LeakyReLU`.

    x: of any shape, float64, float32, bfloat16 or float16. In place, with a negative slope below 0, and for other
    inputs, DTensor among them, and for torch.jit.trace it is PyTorch's own layer.
    Differentiable any number of times. Where PyTorch computes a second derivative by x, and all that follows of it,
    from zeros, this has none.
    Source: Maas et al. 2013, "Rectifier Nonlinearities Improve Neural Network Acoustic Models".
    """

    def forward(self, input: Tensor) -> Tensor:
        # What torch.jit records has to run without this library.
        served = _checks.is_plain(input) and not torch.jit.is_tracing()
        if not served or self.inplace or not self.negative_slope >= 0:
            return super().forward(input)
        return bias_leaky_relu(input, None, self.negative_slope)
