"""Which calls of a critic have a step of their own, and how it is made of their arguments."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from .._checks import FLOATING_DTYPES
from ..ops import group_norm as ops
from ..ops.bias_leaky_relu import bias_leaky_relu, settings_of
from . import activations
from .activations import BiasRectifier, Dropout, PReLU, Rectifier, Smooth, SmoothActivation
from .normalization import Normalization
from .steps import Step
from .weighted import Convolution, Linear

if TYPE_CHECKING:
    from .recorder import Recorder

# A rule is called as the function is, after the recorder and the function itself. It returns the result, or None to
# leave the call to autograd.
Rule = Callable[..., "Tensor | None"]


def linear(recorder: Recorder, function: Any, input: Any, weight: Any, bias: Any = None) -> Tensor | None:
    source = recorder.source(input, weight, bias)
    if source is None or input.dim() < 2 or weight.dim() != 2 or (bias is not None and bias.dim() != 1):
        return None
    out = _outside_graph(function, input, weight, bias)
    return recorder.add(Linear(source, recorder.value(source, input), weight, bias, out), out)


def convolution(
    dims: int,
    recorder: Recorder,
    function: Any,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
) -> Tensor | None:
    source = recorder.source(input, weight, bias)
    if source is None or input.dim() != dims + 2 or isinstance(padding, str) or not _has_layout(input):
        return None
    out = _outside_graph(function, input, weight, bias, stride, padding, dilation, groups)
    settings = *_of_each_dimension(dims, stride, padding, dilation), False, [0] * dims, groups
    return recorder.add(Convolution(source, recorder.value(source, input), weight, bias, out, input, settings), out)


def transposed_convolution(
    dims: int,
    recorder: Recorder,
    function: Any,
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Tensor | None:
    source = recorder.source(input, weight, bias)
    if source is None or input.dim() != dims + 2 or not _has_layout(input):
        return None
    out = _outside_graph(function, input, weight, bias, stride, padding, output_padding, groups, dilation)
    stride, padding, dilation, output_padding = _of_each_dimension(dims, stride, padding, dilation, output_padding)
    if any([extra >= step for extra, step in zip(output_padding, stride)]):
        return None
    settings = stride, padding, dilation, True, output_padding, groups
    return recorder.add(Convolution(source, recorder.value(source, input), weight, bias, out, input, settings), out)


def relu(recorder: Recorder, function: Any, input: Any, inplace: bool = False) -> Tensor | None:
    return _rectifier(recorder, input, 0.0, inplace)


def leaky_relu(
    recorder: Recorder, function: Any, input: Any, negative_slope: float = 0.01, inplace: bool = False
) -> Tensor | None:
    return _rectifier(recorder, input, negative_slope, inplace)


def _rectifier(recorder: Recorder, x: Any, slope: float, in_place: bool) -> Tensor | None:
    source = recorder.source(x)
    if source is None or in_place and (slope < 0 or x._is_view()):
        return None
    h = x.detach()
    if not in_place:
        step = Rectifier(source, h, slope)
        return recorder.add(step, step.value(), step.value)
    with torch.no_grad():
        functional.leaky_relu_(h, slope) if slope else functional.relu_(h)
    return recorder.add_in_place(lambda: Rectifier(source, h, slope), x)


def bias_rectifier(
    recorder: Recorder,
    function: Any,
    x: Any,
    bias: Any = None,
    negative_slope: float = 0.01,
    gain: float = 1.0,
    clamp: float | None = None,
) -> Tensor | None:
    source = recorder.source(x, bias)
    if source is None:
        return None
    y = _outside_graph(function, x, bias, negative_slope, gain, clamp)
    return recorder.add(BiasRectifier(source, y, bias, settings_of(y.dtype, negative_slope, gain, clamp)), y)


def prelu(recorder: Recorder, function: Any, input: Any, weight: Any) -> Tensor | None:
    source = recorder.source(input, weight)
    if source is None or input.dim() < 2:
        return None
    out = _outside_graph(function, input, weight)
    if out.dtype != input.dtype:
        return None
    return recorder.add(PReLU(source, input.detach(), weight), out)


def dropout(
    recorder: Recorder, function: Any, input: Any, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor | None:
    source = recorder.source(input)
    if source is None or inplace or not training or not 0 < p < 1:
        return None
    # Of ones it draws what it would of anything, and gives what it multiplies by.
    noise = _outside_graph(function, torch.ones_like(input), p, True)
    return recorder.add(Dropout(source, noise), input.detach() * noise)


def smooth(phi: Smooth, recorder: Recorder, function: Any, input: Any, *settings: Any) -> Tensor | None:
    source = recorder.source(input)
    if source is None:
        return None
    out = _outside_graph(function, input, *settings)
    if out.dtype != input.dtype:  # autocast
        return None
    return recorder.add(SmoothActivation(source, out if phi.keeps_out else input.detach(), phi, settings), out)


def softplus(
    recorder: Recorder, function: Any, input: Any, beta: float = 1.0, threshold: float = 20.0
) -> Tensor | None:
    return smooth(activations.SOFTPLUS, recorder, function, input, beta, threshold)


def silu(recorder: Recorder, function: Any, input: Any, inplace: bool = False) -> Tensor | None:
    return None if inplace else smooth(activations.SILU, recorder, function, input)


def elu(recorder: Recorder, function: Any, input: Any, alpha: float = 1.0, inplace: bool = False) -> Tensor | None:
    return None if inplace else smooth(activations.ELU, recorder, function, input, alpha)


def gelu(recorder: Recorder, function: Any, input: Any, *, approximate: str = "none") -> Tensor | None:
    return None if approximate != "none" else smooth(activations.GELU, recorder, function, input)


def layer_norm(
    recorder: Recorder,
    function: Any,
    input: Any,
    normalized_shape: Any,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor | None:
    source = _normalized_source(recorder, input, weight, bias)
    if source is None or not input.is_contiguous():
        return None
    step = Normalization(source, input.detach(), weight, bias, 1, len(normalized_shape), eps)
    return recorder.add(step, step.out)


def group_norm(
    recorder: Recorder,
    function: Any,
    input: Any,
    num_groups: int,
    weight: Any = None,
    bias: Any = None,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor | None:
    source = _normalized_source(recorder, input, weight, bias)
    # torch refuses to normalise single numbers.
    if source is None or input.numel() == input.shape[0] * num_groups:
        return None
    step = Normalization(source, input.detach(), weight, bias, num_groups, 0, eps)
    return recorder.add(step, step.out)


def instance_norm(
    recorder: Recorder,
    function: Any,
    input: Any,
    running_mean: Any = None,
    running_var: Any = None,
    weight: Any = None,
    bias: Any = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-5,
    *_: Any,
) -> Tensor | None:
    if running_mean is not None or not use_input_stats:
        return None
    return group_norm(recorder, function, input, input.shape[1], weight, bias, eps)


def attention(recorder: Recorder, function: Any, *args: Any, **settings: Any) -> Any:
    """Left to autograd, on the kernel that has a second derivative: the fused ones have none."""
    with sdpa_kernel(SDPBackend.MATH):
        return function(*args, **settings)


def _normalized_source(recorder: Recorder, x: Any, weight: Any, bias: Any) -> int | None:
    source = recorder.source(x, weight, bias)
    # Autocast may want other dtypes; the steps call the kernels below it.
    if source is None or torch.is_autocast_enabled(x.device.type) or x.dim() < 2 or not _has_layout(x):
        return None
    alike = [p.dtype == x.dtype for p in (weight, bias) if p is not None]
    return source if all(alike) and x.numel() and x.dtype in FLOATING_DTYPES else None


def _outside_graph(function: Any, x: Tensor, *args: Any) -> Tensor:
    with torch.no_grad():
        return function(x.detach(), *args)


def _of_each_dimension(dims: int, *settings: Any) -> list[list[int]]:
    return [[n] * dims if isinstance(n, int) else list(n) * (dims if len(n) == 1 else 1) for n in settings]


def _has_layout(x: Tensor) -> bool:
    layouts = {4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(x.dim(), [])
    return x.is_contiguous() or any([x.is_contiguous(memory_format=layout) for layout in layouts])


RULES: dict[Any, Rule] = {
    functional.linear: linear,
    functional.conv1d: partial(convolution, 1),
    functional.conv2d: partial(convolution, 2),
    functional.conv3d: partial(convolution, 3),
    functional.conv_transpose1d: partial(transposed_convolution, 1),
    functional.conv_transpose2d: partial(transposed_convolution, 2),
    functional.conv_transpose3d: partial(transposed_convolution, 3),
    **dict.fromkeys((functional.relu, torch.relu, Tensor.relu), relu),
    **dict.fromkeys((torch.relu_, Tensor.relu_), partial(relu, inplace=True)),
    functional.leaky_relu: leaky_relu,
    bias_leaky_relu: bias_rectifier,
    functional.prelu: prelu,
    **dict.fromkeys((functional.dropout, functional.dropout1d, functional.dropout2d, functional.dropout3d), dropout),
    **dict.fromkeys((torch.tanh, Tensor.tanh), partial(smooth, activations.TANH)),
    **dict.fromkeys((torch.sigmoid, Tensor.sigmoid), partial(smooth, activations.SIGMOID)),
    functional.softplus: softplus,
    functional.silu: silu,
    functional.elu: elu,
    functional.gelu: gelu,
    **dict.fromkeys((functional.layer_norm, ops.layer_norm), layer_norm),
    **dict.fromkeys((functional.group_norm, ops.group_norm), group_norm),
    functional.instance_norm: instance_norm,
    **dict.fromkeys((functional.scaled_dot_product_attention, functional.multi_head_attention_forward), attention),
}


def register_rule(function: Callable[..., Tensor], make_step: Callable[..., Step]) -> None:
    """Gives a function of a critic a step of its own; without one it is differentiated twice by autograd.

    Args:
        function: f(x, *args, **kwargs) -> Tensor, one that torch lets modes see: of torch, `torch.ops.library.name`, or
            a Python function made so by `torch.overrides.wrap_torch_function(lambda x, *args, **kwargs: (x,))`.
        make_step: make_step(x, out, *args, **kwargs) -> Step, with x and out outside the graph; it need not set
            `sources`. Called where x depends on the samples and no other argument does.
    """
    RULES[function] = partial(_registered, make_step)


def _registered(
    make_step: Callable[..., Step], recorder: Recorder, function: Any, x: Any, *args: Any, **kwargs: Any
) -> Tensor | None:
    source = recorder.source(x)
    if source is None or recorder.holds_slot((args, kwargs)):
        return None
    with torch.no_grad():
        out = function(x.detach(), *args, **kwargs)
    step = make_step(x.detach(), out, *args, **kwargs)
    step.sources = (source,)
    return recorder.add(step, out)
