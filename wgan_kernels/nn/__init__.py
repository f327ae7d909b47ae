"""Modules over the functions of the library."""

from .losses import GradientPenalty, MMDLoss
from .minibatch import MinibatchDiscrimination, MinibatchStdDev

__all__ = ["GradientPenalty", "MMDLoss", "MinibatchDiscrimination", "MinibatchStdDev"]
