"""Modules over the functions of the library."""

from .losses import GradientPenalty, MMDLoss
from .minibatch import MinibatchDiscrimination

__all__ = ["GradientPenalty", "MMDLoss", "MinibatchDiscrimination"]
