"""PyTorch's normalization layers on fused kernels: forward, backward and double backward are one pass each."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _backend, _checks
from ..ops.group_norm import group_norm, layer_norm


class LayerNorm(nn.LayerNorm):
    """`torch.nn.LayerNorm` whose derivatives are kernels: y = weight * (x - E[x]) / sqrt(Var[x] + eps) + bias.

    Args:
        normalized_shape, eps, elementwise_affine, bias, device, dtype: those of `torch.nn.LayerNorm`, whose state_dict
            this takes and gives.

    x: (..., *normalized_shape), float64, float32, bfloat16 or float16; weight and bias are of its dtype or, beside half
    floats, float32. Returns what has the shape, the dtype and the memory format of x. Statistics are float32 inside for
    half floats, and right for data far from 0. Raises what PyTorch's own layer raises.
    Differentiable twice; a third derivative raises. The same input gives the same bits for any number of threads.
    Under `torch.func`, in forward mode, for torch.jit.trace and for DTensor it is PyTorch's own layer.
    Source: Ba et al. 2016, "Layer Normalization", equations 3 and 4.
    """

    def forward(self, input: Tensor) -> Tensor:
        shape, weight, bias = self.normalized_shape, self.weight, self.bias
        if not _are_served(input, weight, bias) or input.shape[input.dim() - len(shape) :] != shape:
            return super().forward(input)
        input, weight, bias = _as_autocast_has_them(input, weight, bias)
        return layer_norm(input, shape, weight, bias, self.eps)


class GroupNorm(nn.GroupNorm):
    """`torch.nn.GroupNorm` whose derivatives are kernels: layer normalisation of each group of channels.

    Args:
        num_groups, num_channels, eps, affine, bias, device, dtype: those of `torch.nn.GroupNorm`, whose state_dict this
            takes and gives.

    x: (B, num_channels, ...), contiguous or channels_last; everything else is as for `LayerNorm`.
    Source: Wu and He 2018, "Group Normalization", equations 1 to 3 and 7.
    """

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        served = _are_served(input, weight, bias) and input.dim() > 1 and input.shape[1] == self.num_channels
        if not served or input.shape[1:].numel() == self.num_groups:
            return super().forward(input)
        input, weight, bias = _as_autocast_has_them(input, weight, bias)
        return group_norm(input, self.num_groups, weight, bias, self.eps)


class InstanceNorm2d(nn.InstanceNorm2d):
    """`torch.nn.InstanceNorm2d` whose derivatives are kernels: layer normalisation of each channel's image.

    Args:
        num_features, eps, momentum, affine, track_running_stats, device, dtype, bias: those of
            `torch.nn.InstanceNorm2d`, whose state_dict this takes and gives.

    x: (B, num_features, H, W), contiguous or channels_last; everything else is as for `LayerNorm`. With
    track_running_stats it is PyTorch's own layer.
    Source: Ulyanov et al. 2016, "Instance Normalization: The Missing Ingredient for Fast Stylization".
    """

    def forward(self, input: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        served = _are_served(input, weight, bias) and input.dim() == 4 and input.shape[1] == self.num_features
        if not served or self.running_mean is not None or input.shape[2:].numel() == 1:
            return super().forward(input)
        return group_norm(input, self.num_features, weight, bias, self.eps)


def _are_served(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> bool:
    """Whether the operator takes these; what it does not take is for PyTorch to compute, or to refuse."""
    # What torch.jit records has to run, and to have derivatives, without this library.
    if not _checks.is_plain(x) or torch.jit.is_tracing() or x.numel() == 0 or _backend.is_reference_only():
        return False
    dtypes = (x.dtype, torch.float32) if x.dtype.itemsize == 2 else (x.dtype,)
    for param in (weight, bias):
        if param is not None and (param.dtype not in dtypes or param.device != x.device):
            return False
    return weight is None or bias is None or weight.dtype == bias.dtype


def _as_autocast_has_them(x: Tensor, *params: Tensor | None) -> tuple[Tensor | None, ...]:
    """On GPUs, autocast has layer and group normalisation in float32."""
    if not x.is_cuda or not torch.is_autocast_enabled("cuda"):
        return x, *params
    return tuple([t.float() if t is not None and t.dtype.itemsize == 2 else t for t in (x, *params)])
