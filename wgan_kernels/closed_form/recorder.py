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
from torch.overrides import TorchFunctionMode

from ..state import tensors_in
from .rules import RULES
from .steps import Kept, Segment, Step


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
        self._values: dict[
            int, tuple[Callable[[], Tensor], int, int]
        ] = {}  # of slots that are made again rather than kept
        self._slots: dict[tuple[Any, int], int] = {}  # by edge of the graph
        self._marks: set[tuple[Any, int]] = set()  # the edges at which the graph ends
        self._anchor = torch.empty(0, requires_grad=True)
        self._given: dict[tuple[Any, int], Tensor] = {}  # what the critic took from outside, by edge
        self._first = 0  # what autograd recorded before has a lower number
        self._outside: set[Any] = set()  # nodes that are known to be from before
        self._trainable: list[tuple[Tensor, bool]] = []  # a parameter, and whether it was when used
        self._obstacle: NotCovered | None = None

    def start(self, x: Tensor) -> Tensor:
        marked = _Mark.apply(x, self._anchor, False)
        self._new_slot(marked)
        self._marks.add((marked.grad_fn, marked.output_nr))
        self._first = marked.grad_fn._sequence_nr()
        return marked

    def finish(self, scores: Tensor) -> int | None:
        """The slot of the scores; None where they do not depend on the samples."""
        if self._obstacle is not None:  # which the critic may have caught
            raise self._obstacle
        if any([param.requires_grad != was for param, was in self._trainable]):
            raise NotCovered("it freezes or thaws parameters between their uses")
        return self._slot(scores)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function in _NEED_THE_GRAPH or function in _NEED_WHOLE_GRADIENTS:
            self._check_graph(function, (args, kwargs))
        rule = RULES.get(function)
        # Without grad mode it is a constant, or the inside of a custom function; with hooks on what autograd saves,
        # the inside of a checkpoint, which must find the same things saved when it runs again.
        if (
            rule is not None
            and torch.is_grad_enabled()
            and torch._C._autograd._top_saved_tensors_default_hooks(False) is None
        ):
            out = rule(self, function, *args, **kwargs)
            if out is not None:
                return out
        self._note_given((args, kwargs))
        return function(*args, **kwargs)

    def _check_graph(self, function: Any, arguments: Any) -> None:
        if self.holds_slot(arguments):
            whose = "depends on the samples"
        elif function in _NEED_WHOLE_GRADIENTS and any([t.grad_fn is not None for t in tensors_in(arguments)]):
            whose = "was computed of parameters"
        else:
            return
        name = {_GRAD_FN: "grad_fn"}.get(function) or function.__name__
        self._obstacle = NotCovered(f"it calls {name} on a tensor that {whose}")
        raise self._obstacle

    def _note_given(self, arguments: Any) -> None:
        for tensor in tensors_in(arguments):
            if tensor.requires_grad and tensor.grad_fn is not None and self._is_given(tensor.grad_fn):
                self._given[tensor.grad_fn, tensor.output_nr] = tensor

    # For rules.

    def source(self, x: Any, *params: Tensor | None) -> int | None:
        """The slot of x, where x is a plain tensor with one, and the parameters have none."""
        if type(x) is not Tensor or any([p is not None and self._slot(p) is not None for p in params]):
            return None
        if not all([p.dtype.is_floating_point for p in (x, *params) if p is not None]):
            return None
        self._trainable += [(p, p.requires_grad) for p in params if p is not None]
        return self._slot(x)

    def value(self, slot: int, x: Tensor) -> Callable[[], Tensor]:
        """For later: x, which is in this slot."""
        if slot in self._values:
            value, version, address = self._values[slot]
            # Who writes without grad mode, or gives the tensor other memory, leaves its place in the graph as it is.
            if (x._version, x.data_ptr()) == (version, address):
                return value
        return Kept(x.detach()).get

    def add(self, step: Step, out: Tensor, value: Callable[[], Tensor] | None = None) -> Tensor:
        """The step's result as the critic is to see it. `value` makes it again, where it is not to be kept."""
        marked = _Mark.apply(out, self._anchor, False)
        self._add(step, marked)
        if value is not None:
            self._values[self.results[-1]] = value, marked._version, marked.data_ptr()
        return marked

    def add_in_place(self, make_step: Callable[[], Step], x: Tensor) -> Tensor:
        """x, already written into outside the graph, as the result of a step, made when versions are counted."""
        x.detach_()  # from what autograd recorded of it, which is below another slot now
        _Mark.apply(x, self._anchor, True)
        self._add(make_step(), x)
        return x

    def _add(self, step: Step, marked: Tensor) -> None:
        self.results.append(self._new_slot(marked))
        self._marks.add((marked.grad_fn, marked.output_nr))
        self.steps.append(step)

    def _new_slot(self, tensor: Tensor) -> int:
        self._slots[tensor.grad_fn, tensor.output_nr] = len(self.dtypes)
        self.dtypes.append(tensor.dtype)
        return len(self.dtypes) - 1

    def _slot(self, tensor: Tensor) -> int | None:
        """The slot that the tensor is, made of what autograd recorded where it is not one yet; None for a constant."""
        if not tensor.requires_grad or tensor.grad_fn is None:
            return None
        edge = (tensor.grad_fn, tensor.output_nr)
        if edge not in self._slots:
            if self._is_given(tensor.grad_fn):
                return None
            edges, leaves = self._reached(tensor.grad_fn)
            if not edges:
                return None
            if any([leaf._backward_hooks or leaf.retains_grad for leaf in leaves]):
                raise NotCovered("a parameter has a hook, which is to see its whole gradient")
            self.steps.append(Segment([self._slots[e] for e in edges], edges, leaves, edge))
            self.results.append(self._new_slot(tensor))
        return self._slots[edge]

    def _reached(self, node: Any) -> tuple[list[tuple[Any, int]], list[Tensor]]:
        """The marks' edges, and the leaves and given tensors, from which autograd computed what has this grad_fn.

        Slots without a mark are walked through: their own segments are not cut out of the graph, so that what is
        differentiated by such a slot and by what it was made of would count one path twice.
        """
        edges: dict[tuple[Any, int], None] = {}
        leaves: dict[Any, Tensor] = {}
        seen, left = {node}, [node]
        while left:
            for edge in left.pop().next_functions:
                if edge in self._marks:
                    edges[edge] = None
                elif edge in self._given:
                    leaves[edge] = given = self._given[edge]
                    if (given.grad_fn, given.output_nr) != edge:
                        raise NotCovered("it writes into a tensor that was computed outside it")
                elif edge[0] is not None and edge[0] not in seen:
                    if self._is_given(edge[0]):
                        raise NotCovered("it uses, out of sight, a tensor that was computed outside it")
                    seen.add(edge[0])
                    left.append(edge[0])
                    if hasattr(edge[0], "variable"):
                        leaves[edge[0]] = edge[0].variable
        return list(edges), list(leaves.values())

    def _is_given(self, node: Any) -> bool:
        """Whether it was recorded before the critic was called. Leaves have the highest of numbers."""
        if node in self._outside:
            return True
        if node._sequence_nr() >= self._first:
            return False
        seen, left = {node}, [node]
        while left:
            for edge in left.pop().next_functions:
                if edge in self._marks:  # every thread counts by itself: this is one that the critic started
                    return False
                if edge[0] is not None and edge[0] not in seen:
                    seen.add(edge[0])
                    left.append(edge[0])
        self._outside |= seen
        return True

    def holds_slot(self, value: Any) -> bool:
        return any([self._slot(tensor) is not None for tensor in tensors_in(value)])


_GRAD_FN = Tensor.grad_fn.__get__

# What these do to a graph they would do to a piece of it.
_NEED_THE_GRAPH = {
    Tensor.backward,
    Tensor.register_post_accumulate_grad_hook,
    torch.autograd.grad,
    torch.autograd.backward,
}
# Through these somebody may see gradients, or change them, which come in parts also where samples play no part.
_NEED_WHOLE_GRADIENTS = {Tensor.register_hook, Tensor.retain_grad, _GRAD_FN}
