"""Fully connected critics: the whole closed form in one operator."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules import module as modules

from ..critics import runs_its_forward_alone
from ..ops.mlp_penalty import mlp_penalty
from .attach import attach_gradients


class Layers(NamedTuple):
    weights: list[Tensor]
    biases: list[Tensor | None]
    slopes: list[float]  # of the activations below zero, 1 for none
    activated: int  # how many layers there are up to the last activation


def fully_connected_layers(critic: Any, x: Tensor) -> Layers | None:
    """The layers of an nn.Sequential that is known to do nothing else; looked up anew for every call."""
    if type(critic) is not nn.Sequential or not runs_its_forward_alone(critic) or type(x) is not Tensor or not x.is_cpu:
        return None
    # Whoever watches or changes what the layers call must go on seeing it.
    if modules._has_any_global_hook() or torch.is_autocast_enabled("cpu") or torch._C._len_torch_function_stack():
        return None
    layers = Layers([], [], [], 0)
    pending = list(reversed(critic._modules.values()))
    features = x.dim() == 2
    while pending:
        module = pending.pop()
        kind = type(module)
        if not runs_its_forward_alone(module):
            return None
        if kind is nn.Sequential:
            pending.extend(reversed(module._modules.values()))
        elif kind is nn.Linear and features and _fits(module, x):
            layers.weights.append(module.weight)
            layers.biases.append(module.bias)
            layers.slopes.append(1.0)
        elif kind in (nn.ReLU, nn.LeakyReLU) and layers.weights and layers.slopes[-1] == 1:
            slope = 0.0 if kind is nn.ReLU else module.negative_slope
            if not 0 <= slope < 1:
                return None
            layers.slopes[-1] = slope
            layers = layers._replace(activated=len(layers.weights))
        elif kind is nn.Flatten and not layers.weights and (module.start_dim, module.end_dim) == (1, -1):
            features = x.dim() > 1
        elif kind is not nn.Identity and not (kind is nn.Dropout and not module.training):
            return None
    params = [param for param in (*layers.weights, *layers.biases) if param is not None]
    # A layer that is used twice owes two sums to one parameter.
    return layers if layers.weights and len({*map(id, params)}) == len(params) else None


def _fits(linear: nn.Linear, x: Tensor) -> bool:
    weight, bias = linear.weight, linear.bias
    return (
        type(weight) in (nn.Parameter, Tensor)
        and weight.dim() == 2
        and weight.dtype is x.dtype
        and weight.is_cpu
        and x.dtype in (torch.float32, torch.float64)
        and (
            bias is None
            or type(bias) in (nn.Parameter, Tensor)
            and bias.dtype is x.dtype
            and bias.is_cpu
            and bias.shape == weight.shape[:1]
        )
    )


def fully_connected_penalty(
    layers: Layers, x: Tensor, *, target: float, one_sided: bool, reduction: str, weight: float
) -> tuple[Tensor, Tensor] | None:
    """closed_form_penalty of these layers for norm_penalty's penalty: 'mean' or 'sum'; None where they do not chain."""
    x = x.flatten(1)
    sizes = [x.shape[1], *[w.shape[0] for w in layers.weights]]
    if any([w.shape[1] != size for w, size in zip(layers.weights, sizes)]):
        return None
    params = [*layers.weights, *[b for b in layers.biases if b is not None]]
    needs_grads = any([param.requires_grad for param in params])
    value, norms, grads = mlp_penalty(
        x.detach(),
        [w.detach() for w in layers.weights],
        [None if b is None else b.detach() for b in layers.biases],
        layers.slopes,
        target=target,
        one_sided=one_sided,
        reduction=reduction,
        weight=weight,
        needs_grads=needs_grads,
    )
    if not needs_grads:
        return value, norms
    # Biases below an activation get zeros and those above it nothing, as from torch's own double backward.
    zeros = [(b, torch.zeros_like(b)) for b in layers.biases[: layers.activated] if b is not None and b.requires_grad]
    found = [(w, grad) for w, grad in zip(layers.weights, grads) if w.requires_grad] + zeros
    return attach_gradients(value, [param for param, _ in found], [grad for _, grad in found]), norms
