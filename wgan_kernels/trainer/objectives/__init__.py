"""What the networks minimise: one file per objective, each with a twin that is written without this library."""

from __future__ import annotations

from ..config import Config
from .base import Objective
from .gan import GAN, PlainGAN
from .mmd_gan import MMDGAN, PlainMMDGAN
from .nsgan import NSGAN, PlainNSGAN
from .wae_gan import WAEGAN, PlainWAEGAN
from .wae_mmd import WAEMMD, PlainWAEMMD
from .wgan import WGAN, PlainWGAN
from .wgan_gp import WGANGP, PlainWGANGP

_PAIRS = (
    (GAN, PlainGAN),
    (NSGAN, PlainNSGAN),
    (WGAN, PlainWGAN),
    (WGANGP, PlainWGANGP),
    (MMDGAN, PlainMMDGAN),
    (WAEMMD, PlainWAEMMD),
    (WAEGAN, PlainWAEGAN),
)
OBJECTIVES = {library.name: (library, plain) for library, plain in _PAIRS}


def make_objective(config: Config, plain: bool = False) -> Objective:
    """That of a run, or its twin; raises ValueError for a setting that it does not have."""
    return OBJECTIVES[config.objective][plain](**config.own_settings())
