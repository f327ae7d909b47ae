"""What the networks minimise: one file per objective, each with a twin that is written without this library."""

from __future__ import annotations

from ..config import Config
from . import gan, mmd_gan, nsgan, wae_gan, wae_mmd, wgan, wgan_gp
from .base import Objective

_PAIRS = [(gan.GAN, gan.PlainGAN), (nsgan.NSGAN, nsgan.PlainNSGAN), (wgan.WGAN, wgan.PlainWGAN)]
_PAIRS += [(wgan_gp.WGANGP, wgan_gp.PlainWGANGP), (mmd_gan.MMDGAN, mmd_gan.PlainMMDGAN)]
_PAIRS += [(wae_mmd.WAEMMD, wae_mmd.PlainWAEMMD), (wae_gan.WAEGAN, wae_gan.PlainWAEGAN)]
OBJECTIVES = {library.name: (library, plain) for library, plain in _PAIRS}


def make_objective(config: Config, plain: bool = False) -> Objective:
    """That of a run, or its twin; raises ValueError for a setting that it does not have."""
    return OBJECTIVES[config.objective][plain](**config.own_settings())
