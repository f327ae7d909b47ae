"""Argument errors: each names the argument, what came and what was wanted, in the same words for every back end."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

FLOATING_DTYPES = (torch.float64, torch.float32, torch.bfloat16, torch.float16)
REDUCTIONS = ("none", "mean", "sum")


def tensor(name: str, value: Any) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, got {type(value).__name__}")


def floating(name: str, value: Any) -> None:
    """A strided tensor of a real floating dtype that the kernels know."""
    tensor(name, value)
    if value.dtype not in FLOATING_DTYPES:
        raise TypeError(f"{name} must be a tensor of float64, float32, bfloat16 or float16, got {value.dtype}")
    if value.layout is not torch.strided:
        raise TypeError(f"{name} must be a dense (strided) tensor, got layout {value.layout}")


def is_plain(value: Any) -> bool:
    """Whether the operators know such a tensor: a dense one of a floating dtype, and not made of others, as DTensor and
    nested tensors are, which have rules for PyTorch's operators alone."""
    if not isinstance(value, Tensor) or value.dtype not in FLOATING_DTYPES or value.layout is not torch.strided:
        return False
    return not value.is_nested and (type(value) is Tensor or not hasattr(value, "__tensor_flatten__"))


def batched(name: str, value: Any) -> None:
    floating(name, value)
    if value.dim() == 0:
        raise ValueError(f"{name} must have a batch dimension, got a tensor of shape ()")


def same_device(first_name: str, first: Tensor, name: str, value: Tensor) -> None:
    if value.device != first.device:
        raise ValueError(f"{name} must be on the device of {first_name}, {first.device}, got {value.device}")


def same_shape(first_name: str, first: Tensor, name: str, value: Tensor) -> None:
    if value.shape != first.shape:
        raise ValueError(f"{name} must have the shape of {first_name}, {tuple(first.shape)}, got {tuple(value.shape)}")


def number(name: str, value: Any, *, finite: bool = True) -> float:
    """A real number as float; NaN is refused everywhere, infinity unless finite=False."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, got {type(value).__name__}")
    if math.isnan(value) or (finite and math.isinf(value)):
        raise ValueError(f"{name} must be {'finite' if finite else 'a number'}, got {value}")
    return float(value)


def non_negative(name: str, value: Any) -> float:
    result = number(name, value)
    if result < 0:
        raise ValueError(f"{name} must be at least 0, got {value}")
    return result


def positive(name: str, value: Any) -> float:
    result = number(name, value)
    if result <= 0:
        raise ValueError(f"{name} must be greater than 0, got {value}")
    return result


def rectifier(negative_slope: Any, gain: Any, clamp: Any) -> tuple[float, float]:
    """What says how numbers are rectified, of which the first two as floats; the result has to tell on which side of 0
    a number was."""
    slope = non_negative("negative_slope", negative_slope)
    if clamp is not None:
        positive("clamp", clamp)
    return slope, positive("gain", gain)


def flag(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, got {type(value).__name__} {value!r}")


def choice(name: str, value: Any, options: Sequence[str]) -> None:
    if value not in options:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, options))}, got {value!r}")


def penalty(target: Any, one_sided: Any, reduction: Any, reductions: Sequence[str] = REDUCTIONS) -> None:
    """What says how norms are penalised."""
    non_negative("target", target)
    flag("one_sided", one_sided)
    choice("reduction", reduction, reductions)


def critic(value: Any, args: Any, kwargs: Any) -> None:
    if not callable(value):
        raise TypeError(f"critic must be a module or a function, got {type(value).__name__}")
    if not isinstance(args, (tuple, list)):
        raise TypeError(f"args must be a tuple or list, as in args=(labels,), got {type(args).__name__}")
    if kwargs is not None and not isinstance(kwargs, Mapping):
        raise TypeError(f"kwargs must be a dict, as in kwargs={{'labels': labels}}, got {type(kwargs).__name__}")


def generator(value: Any) -> None:
    if value is not None and not isinstance(value, torch.Generator):
        raise TypeError(f"generator must be a torch.Generator or None, got {type(value).__name__}")


def positive_integer(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, got {type(value).__name__}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1, got {value}")
    return value


def due(interval: Any, step: Any) -> bool:
    """Whether something that is done every `interval` steps is done on this one."""
    positive_integer("interval", interval)
    if step is None:
        if interval != 1:
            raise ValueError(f"step must be given with interval={interval}: the number of the training step")
        return True
    if isinstance(step, bool) or not isinstance(step, int):
        raise TypeError(f"step must be a whole number, got {type(step).__name__}")
    return step % interval == 0


def bounds(low: Any, high: Any) -> tuple[float, float]:
    """The clipping interval: (0.01, None) means [-0.01, 0.01]."""
    if high is None:
        bound = number("low", low, finite=False)
        if bound < 0:
            raise ValueError(f"low given alone is the bound c of [-c, c] and must be at least 0, got {low}")
        return -bound, bound
    low, high = number("low", low, finite=False), number("high", high, finite=False)
    if low > high:
        raise ValueError(f"low must not be greater than high, got low={low} and high={high}")
    return low, high


def clippable(params: Sequence[Any]) -> None:
    """What weight clipping accepts, checked tensor by tensor."""
    for index, param in enumerate(params):
        name = f"params[{index}]"
        tensor(name, param)
        if isinstance(param, torch.nn.parameter.UninitializedTensorMixin):
            raise ValueError(f"{name} must be initialised, got a lazy parameter: run the module once before clipping")
        floating(name, param)
        same_device("params[0]", params[0], name, param)
        if param.grad_fn is not None:
            raise ValueError(
                f"{name} must be a parameter or a tensor outside any graph, got the result of "
                f"{param.grad_fn.name()}: clip the parameters themselves, or the detached tensor"
            )
        if any(stride == 0 and size > 1 for size, stride in zip(param.shape, param.stride())):
            raise ValueError(
                f"{name} must not hold one memory location twice, got an expanded tensor of shape "
                f"{tuple(param.shape)} and strides {param.stride()}: clip the tensor it was expanded from"
            )


def steppable(params: Sequence[Tensor], grads: Sequence[Any], *states: Sequence[Any]) -> None:
    """What an optimiser's step accepts: parameters that can be clipped, and what belongs to each."""
    clippable(params)
    for name, others in zip(("grads", "square_avgs", "momentum_buffers", "grad_avgs"), (grads, *states)):
        for index, (param, other) in enumerate(zip(params, others)):
            floating(f"{name}[{index}]", other)
            if other.dtype != param.dtype:
                raise TypeError(f"{name}[{index}] must have its parameter's dtype, {param.dtype}, got {other.dtype}")
            same_shape("its parameter", param, f"{name}[{index}]", other)
            same_device("its parameter", param, f"{name}[{index}]", other)
