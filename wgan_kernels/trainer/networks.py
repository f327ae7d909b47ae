"""The networks: critics and encoders map (B, P) samples to (B, outputs), generators (B, latent) noise to (B, P).

Samples are flat; convolutions fold them into images of `shape` (channels, side, side). A critic ends with its one
nn.Linear that gives the outputs: what comes before are its features.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

from .layers import BatchNorm2d, CriticBlock

SLOPE = 0.2  # of leaky ReLUs, as in DCGAN


class Sizes(NamedTuple):
    """What the networks of a run have to fit."""

    shape: tuple[int, ...]  # (P,), or (channels, side, side)
    latent: int
    width: int
    bounded: bool  # whether samples lie in [-1, 1]

    @property
    def features(self) -> int:
        return math.prod(self.shape)

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
    return nn.Sequential(*_hidden(sizes.features, sizes.width, hidden, partial(nn.LeakyReLU, SLOPE)),
                         nn.Linear(sizes.width, outputs))  # fmt: skip


def mlp_generator(sizes: Sizes, hidden: int) -> nn.Sequential:
    return nn.Sequential(*_hidden(sizes.latent, sizes.width, hidden, nn.ReLU),
                         nn.Linear(sizes.width, sizes.features), *sizes.last())  # fmt: skip


def _hidden(inputs: int, width: int, number: int, activation: Callable[[], nn.Module]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in range(number):
        layers += [nn.Linear(width if layer else inputs, width), activation()]
    return layers


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
    channels, stride, padding = sizes.latent, 1, 0
    for halving in reversed(range(halvings(sizes.shape[1]))):
        wanted = sizes.width << (0 if constant else halving)
        layers.append(nn.ConvTranspose2d(channels, wanted, 4, stride, padding, bias=not batch_norm))
        layers += [BatchNorm2d(wanted), nn.ReLU()] if batch_norm else [nn.ReLU()]
        channels, stride, padding = wanted, 2, 1
    return nn.Sequential(
        *layers, nn.ConvTranspose2d(channels, sizes.shape[0], 4, stride, padding), *sizes.last(), nn.Flatten()
    )


def resnet_critic(sizes: Sizes, outputs: int) -> nn.Sequential:
    channels, side, _ = sizes.shape
    blocks = [CriticBlock(sizes.width, sizes.width, side >> halving) for halving in range(halvings(side))]
    return nn.Sequential(
        nn.Unflatten(1, sizes.shape), nn.Conv2d(channels, sizes.width, 3, padding=1), *blocks, nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(sizes.width, outputs),
    )  # fmt: skip


def halvings(side: int) -> int:
    """How often a side is halved until 4 is left."""
    number = int(math.log2(side)) - 2
    if number < 1 or side != 4 << number:
        raise ValueError(f"side must be a power of 2, 8 or more, got {side}")
    return number


def _mlp(width: int, critic: int, generator: int) -> Architecture:
    return Architecture(width, partial(mlp_critic, hidden=critic), partial(mlp_generator, hidden=generator))


ARCHITECTURES = {
    "mlp-small": _mlp(128, 2, 2),
    "mlp": _mlp(512, 4, 4),
    "mlp-deep": _mlp(512, 11, 4),  # a critic of 12 layers
    "dcgan": Architecture(32, dcgan_critic, dcgan_generator, 16),
    "dcgan-layer-norm": Architecture(32, partial(dcgan_critic, layer_norm=True), dcgan_generator, 16),
    "dcgan-constant": Architecture(
        32, partial(dcgan_critic, constant=True), partial(dcgan_generator, batch_norm=False, constant=True), 16
    ),
    "resnet": Architecture(32, resnet_critic, dcgan_generator, 16),
}
