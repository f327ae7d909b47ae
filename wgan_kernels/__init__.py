"""Fused kernels for training critics: weight clipping, gradient penalties, maximum mean discrepancies."""

from . import closed_form, kernels, nn, optim
from ._backend import use_backend
from ._extension import build_info
from .bandwidths import median_bandwidth
from .critic_loss import wasserstein_critic_loss
from .diagnosis import check_critic
from .kid import KIDResult, kernel_inception_distance
from .mmd import kernel_matvec, mmd2, witness
from .mmd_variance import MMDEstimate, mmd2_with_variance
from .ops.interpolate import interpolate
from .ops.norm_penalty import norm_penalty
from .ops.weight_clip import ClipStats, clip_weights_
from .penalty import explain_route, gradient_penalty
from .two_sample import MMDAggregatedTest, MMDTest, mmd_aggregated_test, mmd_relative_test, mmd_test

__version__ = "0.1.0"

__all__ = [
    "ClipStats",
    "KIDResult",
    "MMDAggregatedTest",
    "MMDEstimate",
    "MMDTest",
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
    "median_bandwidth",
    "mmd2",
    "mmd2_with_variance",
    "mmd_aggregated_test",
    "mmd_relative_test",
    "mmd_test",
    "nn",
    "norm_penalty",
    "optim",
    "use_backend",
    "wasserstein_critic_loss",
    "witness",
]
