"""The gradient penalty without a double backward.

With P the penalty, g = grad_x D and v = dP/dg held fixed, grad_theta P = grad_theta <v, g>, and <v, g> is the
derivative of D along v: one sweep of a tangent through the critic gives it, with one weight gradient for each layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from ..ops.norm_penalty import weighted_norm_penalty
from .attach import attach_gradients
from .recorder import NotCovered, Recorder
from .steps import Changed
from .sweeps import Pass

__all__ = ["NotCovered", "closed_form_penalty"]


def closed_form_penalty(
    score: Callable[[Tensor], Tensor], x: Tensor, *, target: float, one_sided: bool, reduction: str, weight: float
) -> tuple[Tensor, Tensor] | None:
    """weight * norm_penalty of the gradient of sum(score(x)) by x, differentiable once by the parameters of `score`.

    Args:
        score: the critic, (B, ...) -> (B, ...); called once, with grad mode on.
        x: (B, ...) samples, not in a graph, B > 0.
        target, one_sided, weight: as norm_penalty takes them. reduction: 'mean' or 'sum'.

    Returns:
        The penalty, (), and the gradient norms, (B,) float64; None where the scores do not depend on x.

    Raises:
        NotCovered: the critic needs its whole graph, or changes in place what was to be differentiated.
    """
    try:
        recorder = Recorder()
        with torch.enable_grad(), recorder:
            scores = score(recorder.start(x))
        slot = recorder.finish(scores)
        if slot is None:
            return None
        forward = Pass(recorder, scores, slot)
        gradient = forward.input_gradient()
        if gradient is None:
            return None
        factor = 1.0
        if gradient.dtype in (torch.float16, torch.bfloat16):
            # Half floats have no room for weight / B.
            factor = weight / x.shape[0] if reduction == "mean" else weight
            reduction, weight = "sum", 1.0
        needs_params = forward.needs_params()
        with torch.enable_grad():
            gradient.requires_grad_(needs_params)
            value, norms = weighted_norm_penalty(
                gradient, target=target, one_sided=one_sided, reduction=reduction, weight=weight
            )
            if not needs_params:
                return value * factor, norms
            (v,) = torch.autograd.grad(value, gradient)
        grads = forward.param_grads(v)
    except Changed:
        raise NotCovered("it writes in place into a tensor that its derivative needs") from None
    params = [param for param, _ in grads]
    return attach_gradients(value.detach() * factor, params, [grad * factor for _, grad in grads]), norms
