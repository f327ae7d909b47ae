"""The networks: critics and encoders map (B, P) samples to (B, outputs), generators (B, latent) noise to (B, P).

Samples are flat; convolutions fold them into images of `shape` (channels, side, side). A critic ends with its one
nn.Linear that gives the outputs: what comes before are its features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .ranks import joined, own

SLOPE = 0.2  # of leaky ReLUs, as in DCGAN


class Sizes(NamedTuple):
    """What the networks of a run have to fit."""

    shape: tuple[int, ...]  # (P,), or (channels, side, side)
    latent: int
    width: int
    bounded: bool  # whether samples lie in [-1, 1]

    def last(self) -> list[nn.Module]:
        return [nn.Tanh()] if self.bounded else []


class Architecture(NamedTuple):
    """A family of networks that are trained together."""

    width: int
    make_critic: Callable[[Sizes, int], nn.Sequential]
    make_generator: Callable[[Sizes], nn.Sequential]
    least_side: int = 0  # of images that it works on, a power of 2; 0: any samples


def mlp_critic(sizes: Sizes, outputs: int, hidden: int) -> nn.Sequential:
    """Fully connected; no normalisation, which would couple the samples of a batch."""
    features = _hidden(math.prod(sizes.shape), sizes.width, hidden, partial(nn.LeakyReLU, SLOPE))
    return nn.Sequential(*features, nn.Linear(sizes.width, outputs))


def mlp_generator(sizes: Sizes, hidden: int) -> nn.Sequential:
    features = _hidden(sizes.latent, sizes.width, hidden, nn.ReLU)
    return nn.Sequential(*features, nn.Linear(sizes.width, math.prod(sizes.shape)), *sizes.last())


def _hidden(inputs: int, width: int, number: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    linear = [nn.Linear(inputs, width), *[nn.Linear(width, width) for _ in range(number - 1)]]
    return [layer for each in linear for layer in (each, activation())]


def dcgan_critic(sizes: Sizes, outputs: int, layer_norm: bool = False, constant: bool = False) -> nn.Sequential:
    """Strided convolutions; in place of batch normalisation none or layer normalisation, which couple no samples.

    Source: Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs", section 3.
    """
    channels, side, _ = sizes.shape
    layers: list[nn.Module] = [nn.Unflatten(1, sizes.shape)]
    for halving in range(halvings(side)):
        wanted, side = sizes.width << (0 if constant else halving), side // 2
        layers.append(nn.Conv2d(channels, wanted, 4, stride=2, padding=1))
        if layer_norm and halving:  # the first layer stays without, as in DCGAN
            layers.append(nn.LayerNorm([wanted, side, side]))
        layers.append(nn.LeakyReLU(SLOPE))
        channels = wanted
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, outputs))


def dcgan_generator(sizes: Sizes, batch_norm: bool = True, constant: bool = False) -> nn.Sequential:
    """Transposed convolutions; batch normalisation in all layers but the last.

    constant: the same number of filters everywhere, as in Arjovsky et al. 2017, "Wasserstein GAN", section 4.3.
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (sizes.latent, 1, 1))]
    channels, how = sizes.latent, (4, 1, 0)  # kernel, stride, padding: from 1x1 to 4x4, then twice the side each time
    for halving in reversed(range(halvings(sizes.shape[1]))):
        wanted = sizes.width << (0 if constant else halving)
        layers.append(nn.ConvTranspose2d(channels, wanted, *how, bias=not batch_norm))
        layers += [BatchNorm2d(wanted), nn.ReLU()] if batch_norm else [nn.ReLU()]
        channels, how = wanted, (4, 2, 1)
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, sizes.shape[0], *how), *sizes.last(), nn.Flatten())


def resnet_critic(sizes: Sizes, outputs: int) -> nn.Sequential:
    channels, side, _ = sizes.shape
    first = [nn.Unflatten(1, sizes.shape), nn.Conv2d(channels, sizes.width, 3, padding=1)]
    blocks = [CriticBlock(sizes.width, side >> halving) for halving in range(halvings(side))]
    last = [nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes.width, outputs)]
    return nn.Sequential(*first, *blocks, *last)


def halvings(side: int) -> int:
    """How often a side is halved until 4 is left."""
    number = int(math.log2(side)) - 2
    if number < 1 or side != 4 << number:
        raise ValueError(f"side must be a power of 2, 8 or more, got {side}")
    return number


class CriticBlock(nn.Module):
    """(B, C, side, side) -> (B, C, side / 2, side / 2), with layer normalisation.

    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", appendix F.
    """

    def __init__(self, channels: int, side: int) -> None:
        super().__init__()
        halves = [[nn.LayerNorm([channels, side, side]), nn.ReLU(), nn.Conv2d(channels, channels, 3, padding=1)]
                  for _ in range(2)]  # fmt: skip
        self.residual = nn.Sequential(*halves[0], *halves[1], nn.AvgPool2d(2))
        self.shortcut = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, channels, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.residual(x) + self.shortcut(x)


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation by the statistics of all ranks' rows."""

    def forward(self, x: Tensor) -> Tensor:
        return own(super().forward(joined(x))) if self.training else super().forward(x)


class VirtualBatchNorm2d(nn.BatchNorm2d):
    """Normalises each sample by the statistics of a reference batch and of itself.

    The reference batch is the first `size` rows of what comes in, as WithReference arranges it.
    Source: Salimans et al. 2016, "Improved Techniques for Training GANs", section 3.4; its code counts the sample as
    one more of the reference batch.
    """

    def __init__(self, channels: int, size: int) -> None:
        super().__init__(channels, track_running_stats=False)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        mean, square = self._mean(x), self._mean(x**2)
        normal = (x - mean) / (square - mean**2 + self.eps).sqrt()
        return self.weight.view(-1, 1, 1) * normal + self.bias.view(-1, 1, 1)

    def _mean(self, x: Tensor) -> Tensor:
        """Of the reference batch and each sample, (B, C, 1, 1)."""
        of_reference = x[: self.size].mean((0, 2, 3), keepdim=True)
        return (self.size * of_reference + x.mean((2, 3), keepdim=True)) / (self.size + 1)


class WithReference(nn.Module):
    """A network whose batch normalisations are made virtual: a reference batch goes through it with every batch."""

    def __init__(self, network: nn.Sequential, reference: Tensor) -> None:
        super().__init__()
        if not any(isinstance(layer, nn.BatchNorm2d) for layer in network):
            raise ValueError("--virtual-batch-norm needs a generator with batch normalisation, such as that of dcgan")
        self.network = nn.Sequential(
            *[VirtualBatchNorm2d(layer.num_features, len(reference)) if isinstance(layer, nn.BatchNorm2d) else layer
              for layer in network]
        )  # fmt: skip
        self.register_buffer("reference", reference)

    def forward(self, x: Tensor) -> Tensor:
        return self.network(torch.cat([self.reference, x]))[len(self.reference) :]


def _mlp(width: int, critic: int, generator: int) -> Architecture:
    return Architecture(width, partial(mlp_critic, hidden=critic), partial(mlp_generator, hidden=generator))


constant_critic = partial(dcgan_critic, constant=True)
constant_generator = partial(dcgan_generator, batch_norm=False, constant=True)
ARCHITECTURES = {
    "mlp-small": _mlp(128, 2, 2),
    "mlp": _mlp(512, 4, 4),
    "mlp-deep": _mlp(512, 11, 4),  # a critic of 12 layers
    "dcgan": Architecture(32, dcgan_critic, dcgan_generator, 16),
    "dcgan-layer-norm": Architecture(32, partial(dcgan_critic, layer_norm=True), dcgan_generator, 16),
    "dcgan-constant": Architecture(32, constant_critic, constant_generator, 16),
    "resnet": Architecture(32, resnet_critic, dcgan_generator, 16),
}
