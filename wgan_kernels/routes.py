"""The ways to differentiate a gradient penalty by the critic's parameters, and the choice among them."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from . import _backend
from .closed_form import NotCovered, closed_form_penalty, fully_connected_layers, fully_connected_penalty
from .critics import Score, called_eagerly
from .gradient_norms import GradientNorms
from .state import State

ROUTES = ("auto", "closed_form", "functional", "double_backward")

# Critics that turned out to need their whole graph, and why: to try them again would run them twice.
_not_covered: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


class Route(NamedTuple):
    """How a penalty is differentiated ('closed_form', 'functional' or 'double_backward'), and why so."""

    name: str
    reason: str


def choose_route(asked: str, critic: Any, x: Tensor, norms: GradientNorms, detach: bool) -> Route:
    """The route that was asked for, or for 'auto' the best of those that the call allows."""
    transformed = _backend.is_transformed()
    if asked in ("functional", "double_backward"):
        if transformed and asked == "double_backward":
            raise ValueError(f"route must be 'auto' or 'functional' {_IN_TRANSFORMS}, got {asked!r}")
        return Route(asked, "it was asked for")
    obstacle = _obstacle(x, norms, detach, transformed)
    if asked == "closed_form":
        # Without grad mode there is nothing to differentiate: every route is the same.
        if obstacle and torch.is_grad_enabled():
            raise ValueError(f"route must not be 'closed_form' here: {obstacle}")
        return Route("closed_form" if not obstacle else "double_backward", "it was asked for")
    if transformed:
        return Route("functional", f"only torch.func's own derivatives can be transformed {_IN_TRANSFORMS}")
    if isinstance(critic, DistributedDataParallel) and critic.find_unused_parameters:
        obstacle = obstacle or "DistributedDataParallel looks for unused parameters in the whole graph"
    obstacle = obstacle or remembered_obstacle(critic)
    return Route("double_backward", obstacle) if obstacle else Route("closed_form", "the critic allows it")


_IN_TRANSFORMS = "under torch.compile and torch.func"


def _obstacle(x: Tensor, norms: GradientNorms, detach: bool, transformed: bool) -> str | None:
    """Why the call has no closed form, whatever the critic."""
    if transformed:
        return f"it cannot be transformed {_IN_TRANSFORMS}"
    if not torch.is_grad_enabled():
        return "grad mode is off: there is nothing to differentiate"
    if not detach:
        return "with detach=False the penalty is differentiated by the samples too"
    if norms.reduction == "none":
        return "with reduction='none' it is not known yet how the samples are weighed"
    if torch.autograd.forward_ad._current_level >= 0:
        return "forward-mode differentiation is under way"
    return None if x.numel() else "there are no samples"


def remembered_obstacle(critic: Any) -> str | None:
    try:
        return _not_covered.get(_lasting(critic))
    except TypeError:  # not hashable, or without weak references
        return None


def remember_obstacle(critic: Any, obstacle: str) -> None:
    with contextlib.suppress(TypeError):
        _not_covered[_lasting(critic)] = obstacle


def _lasting(critic: Any) -> Any:
    """What is the same from call to call: methods and lambdas are made anew each time."""
    owner = getattr(critic, "__self__", None)
    return getattr(critic, "__code__", critic) if owner is None else owner


def penalty_by_route(
    asked: str, score: Score, x: Tensor, norms: GradientNorms, detach: bool, seed: float
) -> tuple[Tensor, Tensor]:
    """The penalty of the gradient of sum(score(x)) by x, and the gradient norms, float64.

    seed: what the scores' gradients start from, so that half floats do not underflow on the way to x.
    """
    route = choose_route(asked, score.critic, x, norms, detach)
    if route.name == "functional":
        return norms.penalty(_functional_gradient(score, x, seed))
    with called_eagerly(), _explained_errors():
        if route.name == "closed_form":
            found = _fully_connected(score, x, norms)
            if found is not None:
                return _with_backward(*found)
            before = State(score.critic, x, [score.args, score.kwargs])
            try:
                found = closed_form_penalty(score, x.detach(), norms.penalty, seed)
                before.learn()
                return _with_backward(*_depends_on_x(found))
            except NotCovered as obstacle:
                if asked == "closed_form":
                    raise ValueError(f"route must not be 'closed_form' for this critic: {obstacle}") from obstacle
                before.restore()
                if before.is_lost():
                    raise ValueError(
                        f"route must be 'double_backward' for this critic: {obstacle}, and it writes into what it is "
                        "given, so that it cannot be called again"
                    ) from obstacle
                remember_obstacle(score.critic, str(obstacle))
        return norms.penalty(_depends_on_x(_recorded_gradient(score, x, seed)))


def _fully_connected(score: Score, x: Tensor, norms: GradientNorms) -> tuple[Tensor, Tensor] | None:
    settings = norms.plain_settings() if score.is_bare() else None
    layers = None if settings is None else fully_connected_layers(score.critic, x)
    return None if layers is None else fully_connected_penalty(layers, x, settings)


def explained(score: Score, x: Tensor, norms: GradientNorms) -> Route:
    """What 'auto' takes, found by a trial run that the critic does not notice; what was remembered is forgotten."""
    with contextlib.suppress(TypeError):
        _not_covered.pop(_lasting(score.critic), None)
    route = choose_route("auto", score.critic, x, norms, detach=True)
    if route.name != "closed_form":
        return route
    if _fully_connected(score, x, norms) is not None:
        return Route("closed_form", "it is a stack of fully connected layers, which one operator knows")
    before = State(score.critic, x, [score.args, score.kwargs])
    try:
        with called_eagerly():
            closed_form_penalty(score, x.detach(), norms.penalty)
    except NotCovered as obstacle:
        return Route("double_backward", str(obstacle))
    finally:
        before.restore()
    return route


def _with_backward(penalty: Tensor, norms: Tensor) -> tuple[Tensor, Tensor]:
    """Where no parameter has a part in it: backward has nothing to do, but may be called."""
    return penalty if penalty.requires_grad else penalty.detach().requires_grad_(), norms


def _functional_gradient(score: Callable[[Tensor], Tensor], x: Tensor, seed: float) -> Tensor:
    def dependent(x: Tensor) -> Tensor:
        scores = score(x)
        # In here only what depends on x requires grad.
        return _depends_on_x(scores if scores.requires_grad else None)

    # torch.autograd.grad cannot be transformed or compiled; this can.
    scores, pull_back = torch.func.vjp(dependent, x)
    return _unscaled(pull_back(torch.full_like(scores, seed))[0], seed)


def _recorded_gradient(score: Callable[[Tensor], Tensor], x: Tensor, seed: float) -> Tensor | None:
    """The gradient with its graph, where grad mode is on."""
    create_graph = torch.is_grad_enabled()
    with torch.enable_grad():
        scores = score(x)
        if not scores.requires_grad:
            return None
        seeds = torch.full_like(scores, seed)
        (gradient,) = torch.autograd.grad(scores, x, seeds, create_graph=create_graph, allow_unused=True)
        return None if gradient is None else _unscaled(gradient, seed)


def _unscaled(gradient: Tensor, seed: float) -> Tensor:
    if seed == 1:
        return gradient
    return gradient.to(torch.promote_types(gradient.dtype, torch.float32)) / seed


def _depends_on_x(result: Any) -> Any:
    if result is None:
        raise ValueError(
            "critic must give an output that depends on its input; no gradient reaches the input: "
            "is it detached, converted to numbers or ignored inside the critic?"
        )
    return result


@contextlib.contextmanager
def _explained_errors() -> Any:
    try:
        yield
    except RuntimeError as error:
        if "nference tensor" in str(error):
            raise RuntimeError(
                "critic has parameters or buffers made under torch.inference_mode(), which torch cannot "
                "differentiate: build or load the critic outside inference mode, or clone them there"
            ) from error
        raise
