"""The operators on Triton kernels, with the fake kernels and derivatives of the native ones; imported on first use."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .._triton import bias_leaky_relu as _bias_leaky_relu  # noqa: F401 - imported for the operators that they register
from .._triton import group_norm as _group_norm  # noqa: F401
from .._triton import interpolate as _interpolate  # noqa: F401
from .._triton import kernel_matvec as _kernel_matvec  # noqa: F401
from .._triton import kernel_sums as _kernel_sums  # noqa: F401
from .._triton import minibatch_discrimination as _minibatch_discrimination  # noqa: F401
from .._triton import minibatch_stddev as _minibatch_stddev  # noqa: F401
from .._triton import mlp_critic_loss as _mlp_critic_loss  # noqa: F401
from .._triton import norm_penalty as _norm_penalty  # noqa: F401
from .._triton import rmsprop_clip as _rmsprop_clip  # noqa: F401
from .._triton import weight_clip as _weight_clip  # noqa: F401
from . import bias_leaky_relu as bias_leaky_relu_formulas
from . import group_norm as group_norm_formulas
from . import interpolate as interpolate_formulas
from . import kernel_matvec as kernel_matvec_formulas
from . import kernel_sums as kernel_sums_formulas
from . import minibatch_discrimination as minibatch_discrimination_formulas
from . import minibatch_stddev as minibatch_stddev_formulas
from . import mlp_critic_loss as mlp_critic_loss_formulas
from . import norm_penalty as norm_penalty_formulas
from ._autograd import below_autograd

bias_leaky_relu, _, _ = bias_leaky_relu_formulas.register("_triton")
group_norm, _ = group_norm_formulas.register("_triton")
interpolate = interpolate_formulas.register("_triton")
kernel_matvec = kernel_matvec_formulas.register("_triton")
kernel_sums, _, _ = kernel_sums_formulas.register("_triton")
minibatch_discrimination = minibatch_discrimination_formulas.register("_triton")
minibatch_stddev = minibatch_stddev_formulas.register("_triton")
mlp_critic_loss = mlp_critic_loss_formulas.register("_triton")
norm_penalty, _ = norm_penalty_formulas.register("_triton")


def clip_weights_(params: Sequence[Tensor], low: float, high: float) -> None:
    """As reference.clip_weights_."""
    operator = torch.ops.wgan_kernels.clip_weights__triton.default
    if torch.compiler.is_compiling():
        with torch.no_grad():
            operator(params, low, high)
        return
    below_autograd(operator, params, low, high)
    torch.autograd.graph.increment_version(params)


def rmsprop_clip_(*args: object) -> None:
    """As reference.rmsprop_clip_."""
    operator = torch.ops.wgan_kernels.rmsprop_clip__triton.default
    if torch.compiler.is_compiling():
        with torch.no_grad():
            operator(*args)
    else:
        below_autograd(operator, *args)
