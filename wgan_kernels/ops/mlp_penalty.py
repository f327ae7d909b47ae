"""mlp_penalty: the gradient penalty of a fully connected critic, with its derivatives by the weights in closed form."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import mlp_penalty as reference
from . import _schemas
from ._autograd import below_autograd

_REDUCTION_CODES = {"mean": 1, "sum": 2}


def _fake(
    x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], slopes: Sequence[float], *settings: Any
) -> tuple[Tensor, Tensor, Tensor, list[Tensor]]:
    needs_grads = settings[-1]
    grads = [weight.new_empty(weight.shape) for weight in weights] if needs_grads else []
    norms = x.new_empty(x.shape[:1], dtype=torch.float64)
    return x.new_empty(()), norms, x.new_empty((x.shape[0], weights[-1].shape[0])), grads


def _backward(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "wgan_kernels: mlp_penalty is not differentiable, it gives the derivatives itself, as grad_weights"
    )


_operator = torch.ops.wgan_kernels.mlp_penalty.default
torch.library.register_fake("wgan_kernels::mlp_penalty", _fake, lib=_schemas.LIBRARY)
torch.library.register_autograd("wgan_kernels::mlp_penalty", _backward, lib=_schemas.LIBRARY)


def mlp_penalty(
    x: Tensor,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    *,
    target: float,
    one_sided: bool,
    reduction: str,
    weight: float,
    needs_grads: bool = True,
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Gradient penalty of a fully connected critic: weight * reduce((||g_b|| - target)^2), g_b = grad_x sum_k D_k(x_b).

    With layers z_l = W_l h_{l-1} + b_l and h_l = z_l where z_l > 0, slope_l * z_l elsewhere, and v = dP/dg:
    dP/dW_l = sum_b delta_l t_{l-1}^T, where delta is the adjoint sweep that ends in g, and t the tangent sweep
    t_0 = v, t_l = h'_l * (W_l t_{l-1}). dP/db_l is 0, and left out.

    Args:
        x: (B, D) samples, float64 or float32, outside any graph.
        weights: (out, in) of each layer, of the dtype and device of x, outside any graph.
        biases: (out,) of each layer, or None; likewise.
        slopes: of each layer's activation below zero: 0 for ReLU, 1 for none.
        target, one_sided: as for norm_penalty.
        reduction: 'mean' or 'sum' over samples.
        weight: the factor lambda.
        needs_grads: also compute the derivatives by the weights.

    Returns:
        The penalty, (), in the dtype of x; the norms, (B,) float64; and the derivatives by the weights, an empty list
        without needs_grads. Whoever calls this attaches the derivatives.

    Raises:
        TypeError: target not a number, one_sided not a bool.
        ValueError: a target that is negative or not finite; a reduction other than 'mean' and 'sum'; with grad mode
            on, a tensor that requires grad.

    Not differentiable. Norms and v run in float64, products in the dtype of x, all in a fixed order: the same input
    gives the same bits for any number of threads.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    _checks.penalty(target, one_sided, reduction)
    _checks.choice("reduction", reduction, tuple(_REDUCTION_CODES))
    if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in (x, *weights, *biases)]):
        raise ValueError("mlp_penalty is not differentiable: x, weights and biases must be detached")
    if not _backend.is_native(x):
        settings = (target, one_sided, reduction, weight, needs_grads)
        value, norms, _, grads = reference.mlp_penalty(x, weights, biases, slopes, *settings)
        return value, norms, grads
    settings = (target, one_sided, _REDUCTION_CODES[reduction], weight, needs_grads)
    arguments = (x, weights, [x.new_empty(0) if bias is None else bias for bias in biases], slopes, *settings)
    compiling = torch.compiler.is_compiling()
    value, norms, _, grads = _operator(*arguments) if compiling else below_autograd(_operator, *arguments)
    return value, norms, grads
