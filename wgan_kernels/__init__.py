"""Fused kernels for training critics: weight clipping, gradient penalties, maximum mean discrepancies."""

from . import closed_form, kernels, nn, optim
from ._backend import use_backend
from ._extension import build_info
from .critic_loss import wasserstein_critic_loss
from .diagnosis import check_critic
from .kid import KIDResult, kernel_inception_distance
from .mmd import kernel_matvec, mmd2, witness
from .ops.interpolate import interpolate
from .ops.norm_penalty import norm_penalty
from .ops.weight_clip import ClipStats, clip_weights_
from .penalty import explain_route, gradient_penalty

__version__ = "0.1.0"

__all__ = [
    "ClipStats",
    "KIDResult",
    "__version__",
    "build_info",
    "check_critic",
    "clip_weights_",
    "closed_form",
    "explain_route",
    "gradient_penalty",
    "interpolate",
    "kernel_inception_distance",
    "kernel_matvec",
    "kernels",
    "mmd2",
    "nn",
    "norm_penalty",
    "optim",
    "use_backend",
    "wasserstein_critic_loss",
    "witness",
]
