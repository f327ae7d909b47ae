"""Modules over the functions of the library."""

from .activation import BiasLeakyReLU, LeakyReLU
from .conversion import convert_layers
from .losses import GradientPenalty, MMDLoss
from .minibatch import MinibatchDiscrimination, MinibatchStdDev
from .normalization import GroupNorm, InstanceNorm2d, LayerNorm

__all__ = [
    "BiasLeakyReLU",
    "GradientPenalty",
    "GroupNorm",
    "InstanceNorm2d",
    "LayerNorm",
    "LeakyReLU",
    "MMDLoss",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "convert_layers",
]
