"""mlp_critic_loss: what a fully connected critic of WGAN-GP minimises, with its derivatives in closed form."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from .. import _backend, _checks
from ..reference import mlp_critic_loss as reference
from ..reference.mlp_critic_loss import MLPCriticLoss
from . import _schemas
from ._autograd import below_autograd

_REDUCTION_CODES = {"mean": 1, "sum": 2}


def _fake(
    mixed: Tensor,
    real: Tensor | None,
    fake: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    slopes: Sequence[float],
    *settings: Any,
) -> tuple[Tensor, Tensor, Tensor, list[Tensor], list[Tensor]]:
    needs_grads = settings[-1]
    grad_weights = [weight.new_empty(weight.shape) for weight in weights] if needs_grads else []
    grad_biases = [bias.new_empty(bias.shape) for bias in biases] if needs_grads and real is not None else []
    norms = mixed.new_empty(mixed.shape[:1], dtype=torch.float64)
    return mixed.new_empty(()), mixed.new_empty(()), norms, grad_weights, grad_biases


def _backward(ctx: Any, *_: Any) -> None:
    raise NotImplementedError(
        "wgan_kernels: mlp_critic_loss is not differentiable, it gives the derivatives itself, as grad_weights and "
        "grad_biases"
    )


def register(back_end: str = "") -> Callable[..., MLPCriticLoss]:
    """Gives the operator of a back end ('' or '_triton') its fake kernel and what says that it has no derivative;
    returns how to call it."""
    name = f"mlp_critic_loss{back_end}"
    torch.library.register_fake(f"wgan_kernels::{name}", _fake, lib=_schemas.LIBRARY)
    torch.library.register_autograd(f"wgan_kernels::{name}", _backward, lib=_schemas.LIBRARY)
    operator = getattr(torch.ops.wgan_kernels, name).default

    def call(*arguments: Any) -> MLPCriticLoss:
        compiling = torch.compiler.is_compiling()
        return MLPCriticLoss(*(operator(*arguments) if compiling else below_autograd(operator, *arguments)))

    return call


_mlp_critic_loss = register()


def mlp_critic_loss(
    mixed: Tensor,
    real: Tensor | None,
    fake: Tensor | None,
    weights: Sequence[Tensor],
    biases: Sequence[Tensor | None],
    slopes: Sequence[float],
    *,
    target: float,
    one_sided: bool,
    reduction: str,
    weight: float,
    needs_grads: bool = True,
) -> MLPCriticLoss:
    """Loss of a fully connected critic: penalty - wasserstein, wasserstein = mean D(real) - mean D(fake).

    penalty = weight * reduce((||g_b|| - target)^2), g_b = grad_x sum_k D_k(x_b) at the mixed samples x_b. With layers
    z_l = W_l h_{l-1} + b_l and h_l = phi_l(z_l), phi_l(z) = z where z > 0, slope_l * z elsewhere, and v = dP/dg, the
    penalty's part in the derivative by W_l is sum_b delta_l t_{l-1}^T, where delta is the adjoint sweep that ends in g,
    and t the tangent sweep t_0 = v, t_l = phi_l'(z_l) * (W_l t_{l-1}). By b_l it is 0.

    Args:
        mixed: (B, D) samples, float64 or float32, outside any graph.
        real, fake: (B, D) samples like them, or None both, which leaves the penalty alone.
        weights: (out, in) of each layer, of the dtype and device of mixed, outside any graph.
        biases: (out,) of each layer, or None; likewise.
        slopes: of each layer's activation below zero: 0 for ReLU, 1 for none.
        target, one_sided: as for norm_penalty.
        reduction: 'mean' or 'sum' over samples, of the penalty.
        weight: the factor lambda.
        needs_grads: also compute the derivatives.

    Returns:
        (penalty, wasserstein, norms, grad_weights, grad_biases): numbers, (), in the dtype of mixed (wasserstein is 0
        without real and fake); (B,) float64; and the derivatives of the loss by weights and biases, (0,) where there is
        no bias: empty lists without needs_grads, and no grad_biases without real and fake, for they would be 0. Whoever
        calls this attaches the derivatives.

    Raises:
        TypeError: target not a number, one_sided not a bool.
        ValueError: a target that is negative or not finite; a reduction other than 'mean' and 'sum'; with grad mode
            on, a tensor that requires grad.

    Not differentiable. Norms, v and sums of scores run in float64, products in the dtype of mixed (on Triton in TF32
    where torch may use it), all in a fixed order: the same input gives the same bits for any number of threads.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3.
    """
    _checks.penalty(target, one_sided, reduction)
    _checks.choice("reduction", reduction, tuple(_REDUCTION_CODES))
    tensors = (mixed, real, fake, *weights, *biases)
    if torch.is_grad_enabled() and any([t is not None and t.requires_grad for t in tensors]):
        raise ValueError("mlp_critic_loss is not differentiable: samples, weights and biases must be detached")
    if _backend.is_native(mixed, "mlp_critic_loss", len(weights)):
        run = _mlp_critic_loss
    elif _backend.is_triton(mixed):
        from . import _triton_operators

        run = _triton_operators.mlp_critic_loss
    else:
        settings = (target, one_sided, reduction, weight, needs_grads)
        return reference.mlp_critic_loss(mixed, real, fake, weights, biases, slopes, *settings)
    settings = (target, one_sided, _REDUCTION_CODES[reduction], weight, needs_grads)
    biases = [mixed.new_empty(0) if bias is None else bias for bias in biases]
    return run(mixed, real, fake, weights, biases, slopes, *settings)
