"""clip_weights_: in-place weight clipping of a whole critic in one call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import NamedTuple

import torch
from torch import Tensor, nn

from .. import _backend, _checks
from ..reference import weight_clip as reference
from . import _schemas
from .rmsprop_clip import rmsprop_clip_

_grad_fn = attrgetter("grad_fn")


def _fake(params: Sequence[Tensor], low: float, high: float) -> None:
    # The dispatcher sends a list with one meta tensor here, whatever the others are.
    if len({param.device for param in params}) > 1:
        raise RuntimeError("params are on several devices")


_clip = torch.ops.wgan_kernels.clip_weights_.default
torch.library.register_fake("wgan_kernels::clip_weights_", _fake, lib=_schemas.LIBRARY)
# Nothing to record: without this the dispatcher walks the list once more to warn about a missing formula.
_schemas.LIBRARY.impl("clip_weights_", torch.library.fallthrough_kernel, "Autograd")


class ClipStats(NamedTuple):
    """How a clip bears on the weights: almost none at the bound and it is too loose, most of them and it is too tight.

    at_bound: [] float64, which part of the weights is at a bound. largest: [] float64, the largest |w|, after clipping.
    """

    at_bound: Tensor
    largest: Tensor


def new_count(device: torch.device) -> Tensor:
    """[2] int64, in which the operators count: weights at a bound, and the bits of the largest |w| in float64."""
    return torch.zeros(2, dtype=torch.int64, device=device)


def count_clipped(counts: Sequence[tuple[Tensor, int]]) -> ClipStats:
    """Of counts, each with the number of weights that were looked at."""
    home = counts[0][0].device
    both = torch.stack([count.to(home) for count, _ in counts])
    weights = max(sum([numel for _, numel in counts]), 1)
    return ClipStats(both[:, 0].sum().double() / weights, both[:, 1].amax().view(torch.float64))


def clip_weights_(
    params_or_module: nn.Module | Tensor | Iterable[Tensor],
    low: float,
    high: float | None = None,
    *,
    exclude: type[nn.Module] | str | Iterable[type[nn.Module] | str] = (),
    return_stats: bool = False,
) -> ClipStats | None:
    """Clips weights in place: w <- min(max(w, low), high).

    Like an optimiser's step it acts on the parameters themselves and is not recorded: no `torch.no_grad()` is needed.
    Tensors saved for a backward pass before the call are known to have changed (their version is bumped).

    Args:
        params_or_module: a module (all its parameters), a tensor, or an iterable of tensors of any shapes, strides and
            real floating dtypes on one device. A module's shared parameters are clipped once; a list may repeat itself.
        low: lower bound; alone, the bound c of [-c, c]. Rounded to each tensor's dtype, as torch.clamp_ does.
        high: upper bound.
        exclude: module classes (their whole subtree), or names of submodules or parameters, to leave alone, such as
            `(nn.BatchNorm2d, "head.bias")`. Needs a module.
        return_stats: look, in the same pass, at what became of the weights.

    Returns:
        None, or, where it is asked for, ClipStats(at_bound, largest): which part of the weights is at a bound and the
        largest |w|, as tensors [] in float64. A tensor that the list repeats counts once.

    Raises:
        TypeError: a tensor that is not dense and floating; exclude given with tensors.
        ValueError: low > high; a NaN bound; nothing to clip; a tensor that is the result of a graph; an expanded
            tensor; tensors on several devices; an excluded name that the module does not have.

    NaN weights stay NaN. Nothing is written when an error is raised. Not differentiable.
    Source: Arjovsky, Chintala, Bottou 2017, "Wasserstein GAN", Algorithm 1, line 7.
    """
    low, high = _checks.bounds(low, high)
    params = _collect(params_or_module, exclude)
    if return_stats:
        return _clip_and_count(params, low, high)
    if torch.compiler.is_compiling():
        _operator(params[0])(params, low, high)
        return
    try:
        if any(map(_grad_fn, params)):
            _checks.clippable(params)
        if _backend.is_native(params[0], "clip_weights_"):
            _clip(params, low, high)
            torch.autograd.graph.increment_version(params)
            return
    except (RuntimeError, TypeError, ValueError, AttributeError):
        # The operator checks every tensor before it writes to one; the wording of what is wrong is left to here.
        _checks.clippable(params)
        raise
    _checks.clippable(params)
    _operator(params[0])(params, low, high)


def _clip_and_count(params: list[Tensor], low: float, high: float) -> ClipStats:
    _checks.clippable(params)
    params = list(dict.fromkeys(params))
    count = new_count(params[0].device)
    rmsprop_clip_(
        params, [], [], [], [], [], lr=0.0, alpha=0.0, eps=0.0, weight_decay=0.0, momentum=0.0, maximize=False, low=low,
        high=high, stats=count,
    )  # fmt: skip
    if not torch.compiler.is_compiling():
        torch.autograd.graph.increment_version(params)
    return count_clipped([(count, sum([param.numel() for param in params]))])


def _operator(param: Tensor) -> Callable[..., None]:
    """What clips tensors like this one."""
    if _backend.is_native(param, "clip_weights_"):
        return _clip
    if _backend.is_triton(param):
        from . import _triton_operators

        return _triton_operators.clip_weights_
    return reference.clip_weights_


def _collect(params_or_module: object, exclude: object) -> list[Tensor]:
    """The tensors to clip, each once."""
    if isinstance(params_or_module, nn.Module):
        params = _module_parameters(params_or_module, exclude)
    elif exclude:
        raise TypeError("exclude needs a module, whose classes and names it can tell; got tensors to clip")
    elif isinstance(params_or_module, Tensor):
        params = [params_or_module]
    else:
        try:
            params = list(params_or_module)
        except TypeError:
            raise TypeError(
                "params_or_module must be a module, a tensor or an iterable of tensors, "
                f"got {type(params_or_module).__name__}"
            ) from None
    if not params:
        raise ValueError("params_or_module must hold at least one tensor to clip, got none")
    return params


def _module_parameters(module: nn.Module, exclude: object) -> list[Tensor]:
    if exclude == ():
        return list(module.parameters())
    if isinstance(exclude, (str, type)):
        exclude = (exclude,)
    if isinstance(exclude, nn.Module) or not isinstance(exclude, Iterable):
        raise TypeError(f"exclude must hold module classes and names, got {exclude!r}")
    exclude = tuple(exclude)
    for entry in exclude:
        if not isinstance(entry, str) and not (isinstance(entry, type) and issubclass(entry, nn.Module)):
            raise TypeError(f"exclude must hold module classes and names, got {entry!r}")
    classes = tuple(entry for entry in exclude if isinstance(entry, type))
    names = {entry for entry in exclude if isinstance(entry, str)}
    modules = dict(module.named_modules(remove_duplicate=False))
    parameters = dict(module.named_parameters(remove_duplicate=False))
    for name in names:
        if name not in modules and name not in parameters:
            raise ValueError(f"exclude names {name!r}, which is neither a submodule nor a parameter of the module")
    names.update(name for name, child in modules.items() if isinstance(child, classes))
    excluded = {id(param) for name, param in parameters.items() if _is_below(name, names)}
    return [param for param in module.parameters() if id(param) not in excluded]


def _is_below(name: str, ancestors: set[str]) -> bool:
    """Whether the parameter `name`, or a module that holds it, is among `ancestors`."""
    parts = name.split(".")
    return any(".".join(parts[:depth]) in ancestors for depth in range(len(parts) + 1))
