"""Optimisers for clipped critics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from . import _checks
from .ops.rmsprop_clip import rmsprop_clip_
from .ops.weight_clip import ClipStats, count_clipped, new_count

_PLAIN = (nn.Parameter, Tensor)
_SPARSE = (
    "ClippedRMSprop does not support sparse gradients, got one of layout {} for a parameter of shape {}: where an "
    "embedding made it, set its sparse=False"
)


class ClippedRMSprop(torch.optim.RMSprop):
    """RMSProp and weight clipping to [-clip, clip], in one pass over memory: lines 6 and 7 of the WGAN algorithm.

    The numbers are those of `torch.optim.RMSprop` followed by `clamp_`, and so is the state: a state_dict of either
    loads into the other. bfloat16 and float16 are computed in float32 and rounded where they are stored, which torch
    does after every operation. Where rounding alone makes the centered variance negative it is 0, not NaN.

    Args:
        params: parameters or parameter groups; a group may set its own `clip`. A shared parameter is stepped once.
            Those without a gradient are clipped all the same.
        lr: step size; a tensor of one element is read where it is, as a CUDA graph needs.
        alpha: how much of the average of squares is kept.
        eps: added to the root of the average.
        weight_decay: times the weight, added to the gradient.
        momentum: how much of the last update is kept.
        centered: divide by the standard deviation of the gradient.
        maximize: go up.
        clip: the bound c > 0, or None: not clipped.
        capturable: count steps on the parameters' device, as a CUDA graph needs.
        foreach: as in torch, and without effect: a step is one call for each group.
        differentiable: as in torch, and refused.
        record_stats: keep for `clip_stats` what each step did to the weights; may be set at any time, but for a
            compiled step, and is not kept in copies and pickles.

    Raises:
        TypeError: a bound that is no number; a complex parameter, when it is stepped.
        ValueError: a setting out of range; differentiable=True.
        RuntimeError: a sparse gradient, before anything is written.

    With a GradScaler the gradients are unscaled in the same pass, and stay scaled in `.grad` unless `scaler.unscale_`
    is called; a step that it skips does not clip either.
    Source: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", Algorithm 1 (alpha = 5e-5, c = 0.01).
    """

    # torch.amp.GradScaler then sets grad_scale and found_inf for the length of a step, and waits for neither.
    _step_supports_amp_scaling = True
    # Not in what is pickled or copied: of the class, unless set.
    record_stats = False
    _counts: tuple[tuple[Tensor, int], ...] = ()

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float | Tensor = 5e-5,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        *,
        maximize: bool = False,
        clip: float | None = 0.01,
        capturable: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        record_stats: bool = False,
    ) -> None:
        _check_group({"clip": clip, "differentiable": differentiable})
        super().__init__(
            params, lr, alpha, eps, weight_decay, momentum, centered, capturable, foreach, maximize, differentiable
        )
        self.defaults["clip"] = clip
        for group in self.param_groups:
            group.setdefault("clip", clip)
        self.record_stats = record_stats

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state.get("param_groups", ()):
            _check_group(group)
        clips = [group.get("clip") for group in self.__dict__.get("param_groups", ())]
        super().__setstate__(state)
        for at, group in enumerate(self.param_groups):  # those of a torch.optim.RMSprop have no clip
            group.setdefault("clip", clips[at] if at < len(clips) else self.defaults["clip"])
        for of_param in self.state.values():
            if isinstance(of_param.get("step"), Tensor) and not of_param["step"].is_floating_point():
                of_param["step"] = of_param["step"].to(torch.float32)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        if isinstance(param_group, dict):
            _check_group(param_group)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        first = {id(param): at for at, param in reversed(list(enumerate(group["params"])))}
        for key in ("params", "param_names"):
            if key in group:
                group[key] = [group[key][at] for at in sorted(first.values())]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """One step of every parameter, with its clip; calls the closure first, and returns its loss."""
        self._accelerator_graph_capture_health_check()
        if self.record_stats and torch.compiler.is_compiling():
            raise RuntimeError("record_stats must be False in a compiled step, which cannot leave figures behind")
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        # All gradients are looked at before anything is written.
        batches = []
        for group in self.param_groups:
            lists: list[list[Tensor]] = [[], [], [], [], [], [], []]
            plain = self._init_group(group, *lists)
            batches.append((group, lists, plain))
        counts: dict[torch.device, list[Any]] = {}
        for group, (*lists, still), plain in batches:
            self._step_group(group, lists, plain, counts)
            if group["clip"] is not None:
                self._step_group(group, [still, [], [], [], [], []], plain, counts)
        if self.record_stats:
            self._counts = tuple((count, numel) for count, numel in counts.values())
        elif self._counts:
            self._counts = ()
        return loss

    def clip_stats(self) -> ClipStats:
        """What the last step did to the weights of the groups with a clip; needs `record_stats`.

        Returns:
            which part of the weights is at its bound, and the largest magnitude: tensors [] in float64, for whose
            numbers nobody has waited yet. Both are 0 after a step that a GradScaler skipped.

        Raises:
            RuntimeError: where no step was recorded.
        """
        if not self._counts:
            raise RuntimeError("no step with a clip was recorded: set record_stats=True before the step")
        return count_clipped(self._counts)

    # The name and the empty lists are what torch.compile knows an optimiser by.
    def _init_group(
        self,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        square_avgs: list[Tensor],
        momentum_buffers: list[Tensor],
        grad_avgs: list[Tensor],
        steps: list[Tensor],
        still: list[Tensor],
    ) -> bool:
        """Fills the lists; `still` are the parameters without a gradient. Whether all are tensors of no other kind."""
        with_momentum, centered = group["momentum"] > 0, group["centered"]
        needed = ["step", "square_avg", *["momentum_buffer"] * with_momentum, *["grad_avg"] * centered]
        plain, scaled = True, self._scaling()[1] is not None
        for param in group["params"]:
            grad = param.grad
            plain = plain and type(param) in _PLAIN
            if not param.is_floating_point() and (grad is not None or group["clip"] is not None):
                raise TypeError(f"parameters must be real and floating to be clipped, got {param.dtype}")
            if grad is None:
                still.append(param)
                continue
            if grad.layout is not torch.strided:
                raise RuntimeError(_SPARSE.format(grad.layout, tuple(param.shape)))
            state = self.state[param]
            if not state or with_momentum and needed[2] not in state or centered and needed[-1] not in state:
                _init_state(state, needed, param, group["capturable"] or scaled)
            params.append(param)
            grads.append(grad)
            square_avgs.append(state["square_avg"])
            if with_momentum:
                momentum_buffers.append(state["momentum_buffer"])
            if centered:
                grad_avgs.append(state["grad_avg"])
            if scaled and state["step"].device != param.device:
                state["step"] = state["step"].to(param.device)  # whether it is counted is known only there
            steps.append(state["step"])
        return plain

    def _step_group(
        self, group: dict[str, Any], lists: list[list[Tensor]], plain: bool, counts: dict[torch.device, list[Any]]
    ) -> None:
        clip = group["clip"]
        bound = math.inf if clip is None else clip
        grad_scale, found_inf = self._scaling()
        for part in _by_device(lists if plain else _local(lists)):
            device = part[0][0].device
            rmsprop_clip_(
                *part,
                lr=_beside(group["lr"], device),
                alpha=group["alpha"],
                eps=group["eps"],
                weight_decay=group["weight_decay"],
                momentum=group["momentum"],
                maximize=group["maximize"],
                low=-bound,
                high=bound,
                grad_scale=_beside(grad_scale, device),
                found_inf=_beside(found_inf, device),
                stats=self._count(counts, part[0]) if self.record_stats and clip is not None else None,
            )
        if lists[0] and not torch.compiler.is_compiling():
            torch.autograd.graph.increment_version(lists[0])

    def _scaling(self) -> tuple[Tensor | None, Tensor | None]:
        """The scale of the gradients, and what is not 0 where an infinity was found in them."""
        scale, found_inf = getattr(self, "grad_scale", None), getattr(self, "found_inf", None)
        return scale, found_inf if isinstance(found_inf, Tensor) else None  # a sum over no gradients is no tensor

    def _count(self, counts: dict[torch.device, list[Any]], params: list[Tensor]) -> Tensor:
        """Where the statistics of the parameters' device are added up."""
        entry = counts.setdefault(params[0].device, [new_count(params[0].device), 0])
        entry[1] += sum([param.numel() for param in params])
        return entry[0]


def _check_group(group: dict[str, Any]) -> None:
    if group.get("clip") is not None:
        _checks.positive("clip", group["clip"])
    if group.get("differentiable"):
        raise ValueError("differentiable=True is refused: use torch.optim.RMSprop to differentiate through its steps")


def _init_state(state: dict[str, Any], needed: list[str], param: Tensor, on_device: bool) -> None:
    """Adds what is missing: all of it, or what a setting that has changed since needs."""
    for name in needed:
        if name not in state and name == "step":
            dtype = torch.float64 if torch.get_default_dtype() == torch.float64 else torch.float32
            state[name] = torch.zeros((), dtype=dtype, device=param.device if on_device else "cpu")
        elif name not in state:
            state[name] = torch.zeros_like(param, memory_format=torch.preserve_format)


def _local(lists: list[list[Any]]) -> list[list[Tensor]]:
    """The parts of distributed tensors that this rank holds."""
    params, grads, *states = lists
    with torch.no_grad():
        # A gradient may be spread otherwise than its parameter.
        grads = [
            grad.redistribute(placements=param.placements)
            if getattr(grad, "placements", None) != getattr(param, "placements", None)
            else grad
            for grad, param in zip(grads, params)
        ]
        return [
            [tensor.to_local() if hasattr(tensor, "to_local") else tensor for tensor in tensors]
            for tensors in (params, grads, *states)
        ]


def _by_device(lists: list[list[Tensor]]) -> list[list[list[Tensor]]]:
    """The lists, one set for each device; none for no parameters."""
    devices = list(dict.fromkeys([param.device for param in lists[0]]))
    if len(devices) == 1:
        return [lists]
    places = [[i for i, param in enumerate(lists[0]) if param.device == device] for device in devices]
    return [[[tensors[i] for i in at] if tensors else [] for tensors in lists] for at in places]


def _beside(number: Any, device: torch.device) -> Any:
    """A tensor of one number, on the device and in a dtype that the kernels read; a number as it is."""
    if not isinstance(number, Tensor):
        return number
    dtype = number.dtype if number.dtype in (torch.float32, torch.float64) else torch.float32
    # Without waiting, but for a copy to the CPU, which is read at once.
    return number.reshape(()).to(device=device, dtype=dtype, non_blocking=device.type != "cpu")
