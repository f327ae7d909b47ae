"""Layers that torch does not have, or not for several ranks."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .ranks import joined, own


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all ranks' rows."""

    def forward(self, x: Tensor) -> Tensor:
        return own(super().forward(joined(x))) if self.training else super().forward(x)


class VirtualBatchNorm2d(nn.Module):
    """Normalises each sample by the statistics of a reference batch and of itself.

    The reference batch is the first `size` rows of what comes in, as WithReference arranges it.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.4; its code counts the sample as
    one more of the reference batch.
    """

    def __init__(self, channels: int, size: int, eps: float = 1e-5) -> None:
        super().__init__()
        self.size, self.eps = size, eps
        self.weight, self.bias = nn.Parameter(torch.ones(channels, 1, 1)), nn.Parameter(torch.zeros(channels, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        mean, square = self._mean(x), self._mean(x**2)
        return self.weight * (x - mean) / (square - mean**2 + self.eps).sqrt() + self.bias

    def _mean(self, x: Tensor) -> Tensor:
        """Of the reference batch and each sample, (B, C, 1, 1)."""
        of_reference = x[: self.size].mean((0, 2, 3), keepdim=True)
        return (self.size * of_reference + x.mean((2, 3), keepdim=True)) / (self.size + 1)


class WithReference(nn.Module):
    """A network whose batch normalisations are made virtual: a reference batch goes through it with every batch."""

    def __init__(self, network: nn.Sequential, reference: Tensor) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("reference", reference)
        batch_norms = {i: layer for i, layer in enumerate(network) if isinstance(layer, nn.BatchNorm2d)}
        if not batch_norms:
            raise ValueError("--virtual-batch-norm needs a generator with batch normalisation, such as that of dcgan")
        for index, layer in batch_norms.items():
            network[index] = VirtualBatchNorm2d(layer.num_features, len(reference))

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([self.reference, x]))[len(self.reference) :]


class CriticBlock(nn.Module):
    """(B, C, side, side) -> (B, C', side / 2, side / 2), with layer normalisation.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", appendix F.
    """

    def __init__(self, channels: int, wanted: int, side: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm([channels, side, side]), nn.LayerNorm([channels, side, side])
        self.conv1, self.conv2 = nn.Conv2d(channels, channels, 3, padding=1), nn.Conv2d(channels, wanted, 3, padding=1)
        self.shortcut = nn.Conv2d(channels, wanted, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(functional.relu(self.norm1(x)))
        h = self.conv2(functional.relu(self.norm2(h)))
        return functional.avg_pool2d(h, 2) + self.shortcut(functional.avg_pool2d(x, 2))
