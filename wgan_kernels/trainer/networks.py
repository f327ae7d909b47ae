"""The two players, as multilayer perceptrons."""

from __future__ import annotations

from torch import nn

LATENT = 32
WIDTH = 128


def make_critic(pixels: int, width: int = WIDTH) -> nn.Sequential:
    """(B, P) images -> (B, 1) scores; no normalisation, which would couple the samples of a batch."""
    return nn.Sequential(
        nn.Linear(pixels, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, width),
        nn.LeakyReLU(0.2),
        nn.Linear(width, 1),
    )


def make_generator(pixels: int, latent: int = LATENT, width: int = WIDTH) -> nn.Sequential:
    """(B, latent) normal numbers -> (B, P) images with pixels in [-1, 1]."""
    return nn.Sequential(
        nn.Linear(latent, width),
        nn.ReLU(),
        nn.Linear(width, width),
        nn.ReLU(),
        nn.Linear(width, pixels),
        nn.Tanh(),
    )
