"""The gradient penalty without a double backward.

With P the penalty, g = grad_x D and v = dP/dg held fixed, grad_theta P = grad_theta <v, g>, and <v, g> is the
derivative of D along v: one sweep of a tangent through the critic gives it, with one weight gradient for each layer.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .attach import Value, attach_gradients
from .fully_connected import fully_connected_layers, fully_connected_loss, fully_connected_penalty
from .recorder import NotCovered, Recorder
from .rules import register_rule
from .steps import Changed, Step, Tangent
from .sweeps import Pass

__all__ = [
    "NotCovered",
    "Step",
    "Tangent",
    "closed_form_penalty",
    "fully_connected_layers",
    "fully_connected_loss",
    "fully_connected_penalty",
    "register_rule",
]


def closed_form_penalty(
    score: Callable[[Tensor], Tensor],
    x: Tensor,
    penalty: Callable[[Tensor], tuple[Tensor, Tensor]],
    seed: float = 1.0,
) -> tuple[Tensor, Tensor] | None:
    """A function of the gradient of sum(score(x)) by x, differentiable once by the parameters of `score`.

    Args:
        score: the critic, (B, ...) -> (B, ...); called once, with grad mode on.
        x: (B, ...) samples, not in a graph, B > 0.
        penalty: maps a gradient, of the shape of x and float32 at least, to its penalty, (), and what is to be
            reported beside it: the norms.
        seed: what the scores' gradients start from, so that half floats do not underflow on the way to x.

    Returns:
        What `penalty` returns; None where the scores do not depend on x.

    Raises:
        NotCovered: the critic needs its whole graph, or changes in place what was to be differentiated.
    """
    try:
        recorder = Recorder()
        with torch.enable_grad():
            x = recorder.start(x)
            with recorder:
                scores = score(x)
        slot = recorder.finish(scores)
        if slot is None:
            return None
        forward = Pass(recorder, scores, slot, seed)
        gradient = forward.input_gradient()
        if gradient is None:
            return None
        needs_params = forward.needs_params()
        value, norms, v = _outer(penalty, gradient, seed, needs_params)
        if v is None:
            return value, norms
        factor = 1 / seed
        if any([dtype in (torch.float16, torch.bfloat16) for dtype in forward.dtypes]):
            # Half floats have no room for weight / B: the largest tangent starts from 1.
            peak = v.abs().amax()
            peak = torch.where(peak > 0, peak, 1)
            v, factor = v / peak, peak * factor
        forward.start_tangents(v.to(x.dtype))
        del gradient, v  # both as large as the samples, and of no use to the sweep
        grads = forward.param_grads()
    except Changed:
        raise NotCovered("it writes in place into a tensor that its derivative needs") from None
    if seed != 1 or isinstance(factor, Tensor):
        grads = [(param, grad * factor) for param, grad in grads]
    found = Value(value, [grad for _, grad in grads])
    return attach_gradients([param for param, _ in grads], found), norms


def _outer(
    penalty: Callable[[Tensor], tuple[Tensor, Tensor]], gradient: Tensor, seed: float, needs_grad: bool
) -> tuple[Tensor, Tensor, Tensor | None]:
    """What `penalty` returns for a gradient that is `seed` times too large, and its derivative, without their graph."""
    with torch.enable_grad():
        gradient = gradient.to(torch.promote_types(gradient.dtype, torch.float32))
        gradient = (gradient if seed == 1 else gradient / seed).requires_grad_(needs_grad)
        value, norms = penalty(gradient)
        v = torch.autograd.grad(value, gradient)[0] if needs_grad else None
    return value.detach(), norms, v
