"""The two players: (B, P) images with side * side pixels, (B, LATENT) normal numbers."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from torch import nn

LATENT = 32
WIDTH = 128
CHANNELS = 32  # of the convolutions at half the images' side; each halving doubles them


class Architecture(NamedTuple):
    """How both players are made, from the side of the images that they work on."""

    side: int
    make_critic: Callable[[int], nn.Sequential]
    make_generator: Callable[[int], nn.Sequential]


def mlp_critic(side: int) -> nn.Sequential:
    """(B, P) images -> (B, 1) scores; no normalisation, which would couple the samples of a batch."""
    return nn.Sequential(
        nn.Linear(side * side, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, WIDTH),
        nn.LeakyReLU(0.2),
        nn.Linear(WIDTH, 1),
    )


def mlp_generator(side: int) -> nn.Sequential:
    """(B, LATENT) normal numbers -> (B, P) images with pixels in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(LATENT, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, WIDTH),
        nn.ReLU(),
        nn.Linear(WIDTH, side * side),
        nn.Tanh(),
    )


def dcgan_critic(side: int, layer_norm: bool = False) -> nn.Sequential:
    """(B, P) images -> (B, 1) scores; in place of batch normalisation none or layer normalisation, which couple none.

    Source: Radford et al. 2016, "Unsupervised Representation Learning with Deep Convolutional GANs", section 3.
    """
    layers: list[nn.Module] = [nn.Unflatten(1, (1, side, side))]
    channels = 1
    for halving in range(_halvings(side)):
        wanted, side = CHANNELS << halving, side // 2
        layers.append(nn.Conv2d(channels, wanted, 4, stride=2, padding=1))
        if layer_norm and halving:  # the first layer stays without, as in DCGAN
            layers.append(nn.LayerNorm([wanted, side, side]))
        layers.append(nn.LeakyReLU(0.2))
        channels = wanted
    return nn.Sequential(*layers, nn.Conv2d(channels, 1, 4), nn.Flatten())


def dcgan_generator(side: int) -> nn.Sequential:
    """(B, LATENT) normal numbers -> (B, P) images with pixels in [-1, 1]; batch normalisation in all layers but one."""
    layers: list[nn.Module] = [nn.Unflatten(1, (LATENT, 1, 1))]
    channels, stride, padding = LATENT, 1, 0
    for halving in reversed(range(_halvings(side))):
        wanted = CHANNELS << halving
        layers.append(nn.ConvTranspose2d(channels, wanted, 4, stride, padding, bias=False))
        layers += [nn.BatchNorm2d(wanted), nn.ReLU()]
        channels, stride, padding = wanted, 2, 1
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 1, 4, stride, padding), nn.Tanh(), nn.Flatten())


def _halvings(side: int) -> int:
    """How often a side is halved until 4 is left."""
    halvings = int(math.log2(side)) - 2
    if halvings < 1 or side != 4 << halvings:
        raise ValueError(f"side must be a power of 2, 8 or more, got {side}")
    return halvings


ARCHITECTURES = {
    "mlp": Architecture(8, mlp_critic, mlp_generator),
    "dcgan": Architecture(16, dcgan_critic, dcgan_generator),
    "dcgan-layer-norm": Architecture(16, partial(dcgan_critic, layer_norm=True), dcgan_generator),
}
