"""How much the samples of a group differ (Karras et al. 2018, section 3; with groups, Karras et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor


def minibatch_stddev(x: Tensor, group_size: int, num_channels: int) -> Tensor:
    """The standard deviation of each number over the samples of a group, averaged over a block of channels.

    x: (B, C, ...), of which sample b is in group b mod (B / group_size) -> (B / group_size, num_channels) in the dtype
    of x, computed in float32 or float64.
    """
    wide = x.to(torch.promote_types(x.dtype, torch.float32))
    numbers = wide[:1].numel() // num_channels if len(x) else 0
    groups = wide.reshape(group_size, len(x) // group_size, num_channels, numbers)
    variance = (groups - groups.mean(0)).square().mean(0)
    return (variance + 1e-8).sqrt().mean(-1).to(x.dtype)
