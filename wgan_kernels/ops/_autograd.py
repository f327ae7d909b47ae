"""One way to give an operator its derivative, for eager, compiled and traced callers alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from . import _progress
from ._schemas import LIBRARY


def differentiable(
    name: str,
    setup_context: Callable[..., None],
    backward: Callable[..., Any],
    run: Callable[..., Any] | None = None,
    *,
    listened: bool = False,
) -> Callable[..., Any]:
    """Registers the derivative of `wgan_kernels::<name>` and returns the function through which to call it.

    The formula is registered with torch.library, which is what compiled and traced callers meet. An eager caller goes
    through an autograd.Function made of the same two functions: the registered route costs about twice the time of the
    kernels themselves at the sizes of a small critic.

    Args:
        setup_context: (ctx, inputs, output) -> None, as torch.library.register_autograd takes it.
        backward: (ctx, *grad_outputs) -> one gradient or None per input.
        run: what an eager caller runs in place of the operator itself.
        listened: as for eager_function.
    """
    operator = getattr(torch.ops.wgan_kernels, name).default
    torch.library.register_autograd(f"wgan_kernels::{name}", backward, setup_context=setup_context, lib=LIBRARY)
    run = operator if run is None else run

    def forward(ctx: Any, *args: Any) -> Any:
        output = below_autograd(run, *args)
        setup_context(ctx, args, output)
        return output

    apply = eager_function(name, forward, backward, listened=listened)

    def call(*args: Any) -> Any:
        if torch.compiler.is_compiling():
            return operator(*args)
        if torch.is_grad_enabled() and any([isinstance(arg, Tensor) and arg.requires_grad for arg in args]):
            return apply(*args)
        return below_autograd(run, *args)

    return call


def twice_differentiable(
    name: str,
    back_end: str,
    fake: Callable[..., Tensor],
    fake_backward: Callable[..., Tensor],
    fake_double_backward: Callable[..., tuple[Tensor, Tensor]],
) -> Callable[..., Any]:
    """Gives the operators of a back end ('' or '_triton') their fake kernels and derivatives, which stay on that back
    end, and returns the function through which to call the first: of one result by one tensor and two settings.

    <name>(x, *settings) -> y; <name>_backward(grad_y, x, *settings) -> grad_x;
    <name>_double_backward(grad_grad_x, grad_y, x, *settings) -> grad_grad_y, grad_x.
    """

    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, *ctx.settings = inputs
        ctx.save_for_backward(x)

    def setup_backward_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        grad_y, x, *ctx.settings = inputs
        ctx.save_for_backward(grad_y, x)

    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        return by_x(grad_y, *ctx.saved_tensors, *ctx.settings), None, None

    def double_backward(ctx: Any, grad_grad_x: Tensor) -> tuple[Tensor | None, ...]:
        return *by_both(grad_grad_x, *ctx.saved_tensors, *ctx.settings), None, None

    names = [f"{name}{order}{back_end}" for order in ("", "_backward", "_double_backward")]
    for operator, kernel in zip(names, (fake, fake_backward, fake_double_backward)):
        torch.library.register_fake(f"wgan_kernels::{operator}", kernel, lib=LIBRARY)
    by_both = differentiable(names[2], lambda ctx, inputs, output: None, third_derivative(name))
    by_x = differentiable(names[1], setup_backward_context, double_backward)
    return differentiable(names[0], setup_context, backward)


def eager_function(
    name: str, forward: Callable[..., Any], backward: Callable[..., Any], *, listened: bool = False
) -> Callable[..., Any]:
    """`apply` of an autograd.Function made of the two. listened: who listens to its forward pass (_progress.py) also
    listens to its backward."""
    if listened:
        forward, backward = _listened(forward, backward)
    functions = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (torch.autograd.Function,), functions).apply


def _listened(forward: Callable[..., Any], backward: Callable[..., Any]) -> tuple[Callable[..., Any], ...]:
    def listened_forward(ctx: Any, *args: Any) -> Any:
        ctx.listener = _progress.current()
        return forward(ctx, *args)

    def listened_backward(ctx: Any, *grads: Any) -> Any:
        if ctx.listener is None:
            return backward(ctx, *grads)
        with _progress.listening(ctx.listener):
            return backward(ctx, *grads)

    return listened_forward, listened_backward


def is_traced() -> bool:
    """Whether the call is being recorded or transformed, so that it may not branch on numbers."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._are_functorch_transforms_active()
    )


def is_number(tensor: Tensor) -> bool:
    """Whether the tensor holds one number that may be looked at."""
    batched = torch._C._functorch.is_legacy_batchedtensor(tensor)  # autograd.grad(..., is_grads_batched=True)
    return tensor.dim() == 0 and tensor.is_cpu and not batched and not is_traced()


def below_autograd(operator: Callable[..., Any], *args: Any) -> Any:
    """Calls an operator whose derivative nobody asks for, past the registered autograd formula and its cost."""
    with torch._C._AutoDispatchBelowAutograd():
        return operator(*args)


def third_derivative(name: str) -> Callable[..., None]:
    """The backward of a double backward: there is none, and saying so beats a silently wrong gradient."""

    def backward(ctx: Any, *grads: Any) -> None:
        raise NotImplementedError(f"wgan_kernels: third derivatives of {name} are not supported")

    return backward
