"""Records the steps of one forward pass of a critic, while it runs, once, as it always does.

Layers that have a closed form of their own are computed outside the graph, and what comes out goes on as a tensor with
a mark for a grad_fn. Everything else runs under autograd as it would without us, hooks, parametrizations, random
numbers and custom functions included, and what autograd recorded between marks becomes one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from .steps import Activation, Convolution, Kept, Linear, Segment, Step


class NotCovered(Exception):
    """The critic does something to its graph that cutting the graph into steps would change."""


class _Mark(torch.autograd.Function):
    """`value` as a tensor of its own that requires grad, or, written into before, itself."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, anchor: Tensor, in_place: bool) -> Tensor:
        if in_place:
            ctx.mark_dirty(value)
            return value
        return value.detach()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        raise RuntimeError(
            "a tensor that the critic made inside gradient_penalty was differentiated outside it, where its graph is "
            "not complete: use route='double_backward' for this critic"
        )


class Recorder(TorchFunctionMode):
    """A context around the call of the critic on `start(x)`.

    Attributes:
        steps: in the order of the pass.
        results: the slot that each step fills.
        dtypes: of each slot; slot 0 holds the samples.
    """

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Step] = []
        self.results: list[int] = []
        self.dtypes: list[torch.dtype] = []
        self._values: list[Callable[[], Tensor]] = []
        self._slots: dict[tuple[Any, int], int] = {}  # by edge of the graph
        self._anchor = torch.empty(0, requires_grad=True)

    def start(self, x: Tensor) -> Tensor:
        marked = _Mark.apply(x, self._anchor, False)
        self._new_slot(marked, Kept(x).get)
        return marked

    def finish(self, scores: Tensor) -> int | None:
        """The slot of the scores; None where they do not depend on the samples."""
        return self._slot(scores)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _NEED_THE_GRAPH and self._holds_slot((args, kwargs)):
            raise NotCovered(f"it calls {function.__name__} on a tensor that depends on the samples")
        cover = _COVERED.get(function)
        # Without grad mode it is a constant, or the inside of a custom function; with hooks on what autograd saves,
        # the inside of a checkpoint, which must find the same things saved when it runs again.
        if (
            cover is not None
            and torch.is_grad_enabled()
            and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
        ):
            out = cover(self, function, args, kwargs)
            if out is not None:
                return out
        return function(*args, **kwargs)

    # The covered layers. Each returns the result, or None to leave the call to autograd.

    def linear(self, function: Any, args: Any, kwargs: Any) -> Tensor | None:
        x, weight, bias = _linear_arguments(*args, **kwargs)
        source = self._source(x, weight, bias)
        if source is None or x.dim() < 2:
            return None
        out = _call_outside_graph(function, x, args, kwargs)
        return self._add(Linear(source, self._values[source], weight, bias, out), out)

    def convolution(self, function: Any, args: Any, kwargs: Any) -> Tensor | None:
        dims, arguments = _CONVOLUTIONS[function]
        x, weight, bias, stride, padding, dilation, transposed, output_padding, groups = arguments(*args, **kwargs)
        source = self._source(x, weight, bias)
        if source is None or x.dim() != dims + 2 or isinstance(padding, str) or not _has_layout(x):
            return None
        stride, padding, dilation, output_padding = (
            [n] * dims if isinstance(n, int) else list(n) * (dims if len(n) == 1 else 1)
            for n in (stride, padding, dilation, output_padding)
        )
        settings = stride, padding, dilation, transposed, output_padding, groups
        out = _call_outside_graph(function, x, args, kwargs)
        return self._add(Convolution(source, self._values[source], weight, bias, out, x, settings), out)

    def activation(self, function: Any, args: Any, kwargs: Any) -> Tensor | None:
        x, slope, in_place = _ACTIVATIONS[function](*args, **kwargs)
        source = self._source(x)
        if source is None or slope < 0 or in_place and x._is_view():
            return None
        h = x.detach()
        if not in_place:
            step = Activation(source, h, slope)
            return self._add(step, step.value(), step.value)
        with torch.no_grad():
            functional.leaky_relu_(h, slope) if slope else functional.relu_(h)
        _Mark.apply(x, self._anchor, True)
        return self._add(Activation(source, h, slope), x, in_place=True)

    def _add(
        self, step: Step, out: Tensor, value: Callable[[], Tensor] | None = None, in_place: bool = False
    ) -> Tensor:
        marked = out if in_place else _Mark.apply(out, self._anchor, False)
        self.results.append(self._new_slot(marked, value or Kept(out.detach()).get))
        self.steps.append(step)
        return marked

    def _new_slot(self, tensor: Tensor, value: Callable[[], Tensor]) -> int:
        self._slots[tensor.grad_fn, tensor.output_nr] = len(self.dtypes)
        self.dtypes.append(tensor.dtype)
        self._values.append(value)
        return len(self.dtypes) - 1

    def _source(self, x: Any, *params: Tensor | None) -> int | None:
        """The slot of x, where x is a plain tensor with one, and the parameters have none."""
        if type(x) is not Tensor or any([p is not None and self._slot(p) is not None for p in params]):
            return None
        return self._slot(x)

    def _slot(self, tensor: Tensor) -> int | None:
        """The slot that the tensor is, made of what autograd recorded where it is not one yet; None for a constant."""
        if not tensor.requires_grad or tensor.grad_fn is None:
            return None
        edge = (tensor.grad_fn, tensor.output_nr)
        if edge not in self._slots:
            edges, leaves = self._reached(tensor.grad_fn)
            if not edges:
                return None
            self.steps.append(Segment([self._slots[e] for e in edges], edges, leaves, edge))
            self.results.append(self._new_slot(tensor, Kept(tensor.detach()).get))
        return self._slots[edge]

    def _reached(self, node: Any) -> tuple[list[tuple[Any, int]], list[Tensor]]:
        """The slots' edges and the leaves from which autograd computed what has this grad_fn."""
        edges: dict[tuple[Any, int], None] = {}
        leaves: dict[Any, Tensor] = {}
        seen, left = {node}, [node]
        while left:
            for edge in left.pop().next_functions:
                if edge in self._slots:
                    edges[edge] = None
                elif edge[0] is not None and edge[0] not in seen:
                    seen.add(edge[0])
                    left.append(edge[0])
                    if hasattr(edge[0], "variable"):
                        leaves[edge[0]] = edge[0].variable
        return list(edges), list(leaves.values())

    def _holds_slot(self, value: Any) -> bool:
        if isinstance(value, Tensor):
            return self._slot(value) is not None
        if isinstance(value, dict):
            value = list(value.values())
        return isinstance(value, (tuple, list)) and any([self._holds_slot(part) for part in value])


def _call_outside_graph(function: Any, x: Tensor, args: Any, kwargs: Any) -> Tensor:
    args, kwargs = ((x.detach(), *args[1:]), kwargs) if args else (args, {**kwargs, "input": x.detach()})
    with torch.no_grad():
        return function(*args, **kwargs)


def _has_layout(x: Tensor) -> bool:
    layouts = {4: [torch.channels_last], 5: [torch.channels_last_3d]}.get(x.dim(), [])
    return x.is_contiguous() or any([x.is_contiguous(memory_format=layout) for layout in layouts])


# The arguments of the covered functions, as torch names them, in one order.


def _linear_arguments(input: Any, weight: Any, bias: Any = None) -> tuple[Any, ...]:
    return input, weight, bias


def _convolution_arguments(
    input: Any, weight: Any, bias: Any = None, stride: Any = 1, padding: Any = 0, dilation: Any = 1, groups: int = 1
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, False, 0, groups


def _transposed_convolution_arguments(
    input: Any,
    weight: Any,
    bias: Any = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> tuple[Any, ...]:
    return input, weight, bias, stride, padding, dilation, True, output_padding, groups


def _relu_arguments(input: Any, inplace: bool = False) -> tuple[Any, ...]:
    return input, 0.0, inplace


def _relu_in_place_arguments(input: Any) -> tuple[Any, ...]:
    return input, 0.0, True


def _leaky_relu_arguments(input: Any, negative_slope: float = 0.01, inplace: bool = False) -> tuple[Any, ...]:
    return input, negative_slope, inplace


_CONVOLUTIONS = {
    functional.conv1d: (1, _convolution_arguments),
    functional.conv2d: (2, _convolution_arguments),
    functional.conv3d: (3, _convolution_arguments),
    functional.conv_transpose1d: (1, _transposed_convolution_arguments),
    functional.conv_transpose2d: (2, _transposed_convolution_arguments),
    functional.conv_transpose3d: (3, _transposed_convolution_arguments),
}
_ACTIVATIONS = {
    functional.relu: _relu_arguments,
    torch.relu: _relu_arguments,
    Tensor.relu: _relu_arguments,
    torch.relu_: _relu_in_place_arguments,
    Tensor.relu_: _relu_in_place_arguments,
    functional.leaky_relu: _leaky_relu_arguments,
}
_COVERED = {
    functional.linear: Recorder.linear,
    **dict.fromkeys(_CONVOLUTIONS, Recorder.convolution),
    **dict.fromkeys(_ACTIVATIONS, Recorder.activation),
}
# What these do to a graph they would do to a piece of it.
_NEED_THE_GRAPH = {
    Tensor.register_hook,
    Tensor.retain_grad,
    Tensor.backward,
    torch.autograd.grad,
    torch.autograd.backward,
}
