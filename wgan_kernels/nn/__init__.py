"""Modules over the functions of the library."""

from .activation import BiasLeakyReLU, LeakyReLU
from .losses import GradientPenalty, MMDLoss

__all__ = ["BiasLeakyReLU", "GradientPenalty", "LeakyReLU", "MMDLoss"]
