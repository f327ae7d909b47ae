"""Fully connected critics: the whole closed form in one operator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules import module as modules

from .. import _backend
from ..critics import runs_its_forward_alone
from ..ops.mlp_critic_loss import mlp_critic_loss
from .attach import Value, attach_gradients


class Layers(NamedTuple):
    weights: list[Tensor]
    biases: list[Tensor | None]
    slopes: list[float]  # of the activations below zero, 1 for none
    activated: int  # how many layers there are up to the last activation

    def params(self) -> list[Tensor]:
        return [*self.weights, *[bias for bias in self.biases if bias is not None]]

    def constants(self) -> tuple[list[Tensor], list[Tensor | None], list[float]]:
        """Weights, biases and slopes, outside any graph."""
        biases = [None if bias is None else bias.detach() for bias in self.biases]
        return [weight.detach() for weight in self.weights], biases, self.slopes


def _is_rectifier(kind: type[nn.Module]) -> bool:
    if kind in (nn.ReLU, nn.LeakyReLU):
        return True
    if not issubclass(kind, nn.LeakyReLU):
        return False
    from ..nn.activation import LeakyReLU  # whose package stands on this one

    return kind is LeakyReLU


def fully_connected_layers(critic: Any, x: Tensor) -> Layers | None:
    """The layers of an nn.Sequential that is known to do nothing else; looked up anew for every call."""
    if type(critic) is not nn.Sequential or not runs_its_forward_alone(critic) or type(x) is not Tensor:
        return None
    # On a GPU it is fast in kernels only.
    if not (x.is_cpu or x.is_cuda and (_backend.is_native(x, "mlp_critic_loss") or _backend.is_triton(x))):
        return None
    # Whoever watches or changes what the layers call must go on seeing it.
    if (
        modules._has_any_global_hook()
        or torch.is_autocast_enabled(x.device.type)
        or torch._C._len_torch_function_stack()
    ):
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
        elif kind is nn.Linear and features:
            weight, bias = module._parameters.get("weight"), module._parameters.get("bias")
            if not _fit(weight, bias, x):
                return None
            layers.weights.append(weight)
            layers.biases.append(bias)
            layers.slopes.append(1.0)
        elif _is_rectifier(kind) and layers.weights and layers.slopes[-1] == 1:
            slope = 0.0 if kind is nn.ReLU else module.negative_slope
            if not 0 <= slope < 1:
                return None
            layers.slopes[-1] = slope
            layers = layers._replace(activated=len(layers.weights))
        elif kind is nn.Flatten and not layers.weights and (module.start_dim, module.end_dim) == (1, -1):
            features = x.dim() > 1
        elif kind is not nn.Identity and not (kind is nn.Dropout and not module.training):
            return None
    params = layers.params()
    sizes = [x.shape[1:].numel(), *[weight.shape[0] for weight in layers.weights]]
    chained = layers.weights and [weight.shape[1] for weight in layers.weights] == sizes[:-1]
    # A layer that is used twice owes two sums to one parameter.
    return layers if chained and len({*map(id, params)}) == len(params) else None


def _fit(weight: Tensor | None, bias: Tensor | None, x: Tensor) -> bool:
    return (
        type(weight) in (nn.Parameter, Tensor)
        and weight.dim() == 2
        and weight.dtype is x.dtype
        and weight.device == x.device
        and x.dtype in (torch.float32, torch.float64)
        and (
            bias is None
            or type(bias) in (nn.Parameter, Tensor)
            and bias.dtype is x.dtype
            and bias.device == x.device
            and bias.shape == weight.shape[:1]
        )
    )


def fully_connected_penalty(layers: Layers, x: Tensor, settings: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """closed_form_penalty of these layers.

    settings: target, one_sided, reduction ('mean' or 'sum') and weight, as norm_penalty takes them.
    """
    needs_grads = any([param.requires_grad for param in layers.params()])
    terms = mlp_critic_loss(x.detach().flatten(1), None, None, *layers.constants(), **settings, needs_grads=needs_grads)
    params, grads = _of_penalty(layers, terms.grad_weights) if needs_grads else ([], [])
    return attach_gradients(params, Value(terms.penalty, grads, owned=True)), terms.norms


def _of_penalty(layers: Layers, grad_weights: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """The trainable parameters that have a part in a penalty, and its gradients by them."""
    # Biases below an activation get zeros and those above it nothing, as from torch's own double backward.
    biases = [bias for bias in layers.biases[: layers.activated] if bias is not None and bias.requires_grad]
    found = [(weight, grad) for weight, grad in zip(layers.weights, grad_weights) if weight.requires_grad]
    return [weight for weight, _ in found] + biases, [grad for _, grad in found] + [torch.zeros_like(b) for b in biases]


class Loss(NamedTuple):
    loss: Tensor  # ()
    wasserstein: Tensor  # ()
    penalty: Tensor  # ()
    norms: Tensor  # (B,)


def fully_connected_loss(
    layers: Layers, mixed: Tensor, real: Tensor, fake: Tensor, settings: Mapping[str, Any], parts: bool
) -> Loss:
    """The loss of a critic of these layers, penalty - wasserstein, and its parts: in graphs of their own, or constants.

    settings: as for fully_connected_penalty.
    """
    samples = [x.detach().flatten(1) for x in (mixed, real, fake)]
    weights, biases, slopes = layers.constants()
    terms = mlp_critic_loss(*samples, weights, biases, slopes, **settings)
    there = [grad for grad, bias in zip(terms.grad_biases, biases) if bias is not None]
    trained = [param.requires_grad for param in layers.params()]

    def of_trained(each: Sequence[Tensor]) -> list[Tensor]:
        return [one for one, is_trained in zip(each, trained) if is_trained]

    params = of_trained(layers.params())
    whole = Value(terms.penalty - terms.wasserstein, of_trained([*terms.grad_weights, *there]), owned=True)
    loss, wasserstein, penalty = attach_gradients(params, whole), terms.wasserstein, terms.penalty
    if parts:
        # Hardly anyone differentiates them: their gradients are computed when they are asked for.
        constants = [*weights, *[bias for bias in biases if bias is not None]]

        def by_wasserstein(real: Tensor, fake: Tensor, *constants: Tensor) -> Sequence[Tensor]:
            with torch.enable_grad():
                leaves = [constant.detach().requires_grad_() for constant in constants]
                rest = iter(leaves[len(weights) :])
                critic = leaves[: len(weights)], [None if bias is None else next(rest) for bias in biases], slopes
                difference = _scores(real, *critic).mean() - _scores(fake, *critic).mean()
                return torch.autograd.grad(difference, of_trained(leaves))

        def by_penalty(mixed: Tensor, *constants: Tensor) -> Sequence[Tensor]:
            found = mlp_critic_loss(mixed, None, None, weights, biases, slopes, **settings)
            return _of_penalty(layers, found.grad_weights)[1]

        wasserstein = attach_gradients(params, Value(wasserstein, by_wasserstein, True, (*samples[1:], *constants)))
        in_penalty, _ = _of_penalty(layers, weights)
        if in_penalty:
            penalty = attach_gradients(in_penalty, Value(penalty, by_penalty, True, (samples[0], *constants)))
        else:  # backward has nothing to do, but may be called
            penalty = penalty.requires_grad_()
    return Loss(loss, wasserstein, penalty, terms.norms)


def _scores(x: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor | None], slopes: Sequence[float]) -> Tensor:
    for weight, bias, slope in zip(weights, biases, slopes):
        z = functional.linear(x, weight, bias)
        x = z if slope == 1 else functional.leaky_relu(z, slope) if slope else z.relu()
    return x
