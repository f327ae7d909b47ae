"""What the networks minimise: each in one short file, each with a twin in plain PyTorch.

The twin is written out where this library has a whole loss or an optimiser. The other losses are PyTorch's own and
discrepancies, which the twin takes from the library's specification in plain PyTorch, the reference back end.
"""

from ..config import Config
from . import gan, mmd_gan, wae, wgan, wgan_gp
from .base import Objective

_PAIRS = [(wgan.WGAN, wgan.PlainWGAN), (wgan_gp.WGANGP, wgan_gp.PlainWGANGP)]
_PAIRS += [(each, each) for each in (gan.GAN, gan.NSGAN, mmd_gan.MMDGAN, wae.WAEMMD, wae.WAEGAN)]
OBJECTIVES = {each.name: (each, type("Plain", (plain,), {"on_reference": True})) for each, plain in _PAIRS}


def make_objective(config: Config, plain: bool = False) -> Objective:
    """That of a run, or its twin; raises ValueError for a setting that it does not have."""
    return OBJECTIVES[config.objective][plain](**config.own_settings())
