"""Modules over the functions of the library."""

from .conversion import convert_layers
from .losses import GradientPenalty, MMDLoss
from .minibatch import MinibatchDiscrimination, MinibatchStdDev
from .normalization import GroupNorm, InstanceNorm2d, LayerNorm

__all__ = [
    "GradientPenalty",
    "GroupNorm",
    "InstanceNorm2d",
    "LayerNorm",
    "MMDLoss",
    "MinibatchDiscrimination",
    "MinibatchStdDev",
    "convert_layers",
]
