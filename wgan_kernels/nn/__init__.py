"""Modules over the functions of the library."""

from .losses import GradientPenalty, MMDLoss

__all__ = ["GradientPenalty", "MMDLoss"]
