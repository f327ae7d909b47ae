"""gradient_penalty: the penalty of WGAN-GP and its kin."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from . import _backend, _checks
from .ops.interpolate import interpolate
from .ops.norm_penalty import weighted_norm_penalty

POINTS = ("mixed", "real", "fake")


def gradient_penalty(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    *,
    weight: float = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    points: str = "mixed",
    mix: Tensor | None = None,
    generator: torch.Generator | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: int | str | Callable[[Any], Tensor] | None = None,
    reduction: str = "mean",
    return_norms: bool = False,
    detach: bool = True,
) -> Tensor | tuple[Tensor, Tensor]:
    """Gradient penalty: weight * mean((||grad_x critic(x)||_2 - target)^2) at x = mix * real + (1 - mix) * fake.

    Args:
        critic: a module or function that maps (B, ...) to one score per sample, (B,) or (B, 1), or to a map of scores
            per sample, (B, ...), whose sum is differentiated; or to a tuple or dict that holds it (see `output`).
        real: (B, ...) samples of the data, float64, float32, bfloat16 or float16.
        fake: (B, ...) generated samples, of the same shape and device. Dtypes are promoted as torch does.
        weight: the factor lambda.
        target: the gradient norm that costs nothing, at least 0 (0 gives R1 and R2).
        one_sided: only norms above the target cost.
        points: where the gradient is taken: 'mixed', or at 'real' or 'fake' (the other sample may then be None).
        mix: (B,) or (B, 1, ...) mixing numbers, one per sample; None draws them uniformly from [0, 1).
        generator: the torch generator to draw the mixing numbers from; None takes torch's default.
        args, kwargs: passed on to the critic after x: labels, embeddings.
        output: which part of the critic's output is the score: an index or key, or a function of the output.
        reduction: 'mean' or 'sum' over samples, or 'none' for (B,).
        return_norms: also return the gradient norms.
        detach: treat real, fake and mix as constants. False lets their gradients through.

    Returns:
        The penalty, float64 for float64 samples, else float32, and with `return_norms` also the norms, (B,) of the
        same dtype, outside the graph.

    Raises:
        TypeError: an argument of a wrong type; an output that is no floating tensor.
        ValueError: shapes or devices that differ; a score without one row per sample; a critic whose output does not
            depend on its input.
        RuntimeError: a critic whose parameters were made under inference mode, which torch cannot differentiate.

    Differentiable twice in the gradient norms (as often as a training step needs). Under `torch.no_grad()` and
    `torch.inference_mode()` it gives the value. Where a gradient is 0 its derivative is 0, never NaN.
    Warns when the critic holds batch normalisation in training mode, which couples the samples that the penalty
    takes one by one. Deterministic for a given mix as far as the critic is.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3 and Algorithm 1.
    """
    if not callable(critic):
        raise TypeError(f"critic must be a module or a function, got {type(critic).__name__}")
    weight = _checks.number("weight", weight)
    _checks.penalty(target, one_sided, reduction)
    settings = {"weight": weight, "target": target, "one_sided": one_sided, "reduction": reduction}
    create_graph = torch.is_grad_enabled()
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        # Tensors made in here must be ordinary ones: autograd takes no others.
        with torch.inference_mode(False), torch.no_grad():
            x = _points(real, fake, points, mix, generator, detach)
            grad = _input_gradient(critic, x, args, kwargs, output, create_graph)
            penalty, norms = weighted_norm_penalty(grad, **settings)
    else:
        x = _points(real, fake, points, mix, generator, detach)
        grad = _input_gradient(critic, x, args, kwargs, output, create_graph)
        penalty, norms = weighted_norm_penalty(grad, **settings)
    return (penalty, norms.to(penalty.dtype)) if return_norms else penalty


def _points(
    real: Tensor, fake: Tensor, points: str, mix: Tensor | None, generator: torch.Generator | None, detach: bool
) -> Tensor:
    """Where the gradient is taken: (B, ...), requiring grad."""
    _checks.choice("points", points, POINTS)
    if points == "mixed":
        if detach:
            real, fake, mix = (value.detach() if isinstance(value, Tensor) else value for value in (real, fake, mix))
        x = interpolate(real, fake, mix, generator=generator)
    else:
        if mix is not None or generator is not None:
            raise ValueError(f"mix and generator must be None with points={points!r}, where nothing is mixed")
        x = real if points == "real" else fake
        _checks.batched(points, x)
        if detach or not x.requires_grad:
            x = x.detach()
        if not torch.compiler.is_compiling() and x.is_inference():
            x = x.clone()
    return x if x.requires_grad or _backend.is_transformed() else x.requires_grad_()


def _input_gradient(
    critic: Callable[..., Any],
    x: Tensor,
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    output: int | str | Callable[[Any], Tensor] | None,
    create_graph: bool,
) -> Tensor:
    """Gradient of each sample's score by the sample, of the shape of x."""
    if isinstance(critic, nn.Module):
        _warn_of_batch_norm(critic)

    def score(x: Tensor) -> Tensor:
        return _scores(critic(x, *args, **(kwargs or {})), output, x.shape[0])

    if _backend.is_transformed():
        # torch.autograd.grad cannot be transformed or compiled; this can.
        scores, pull_back = torch.func.vjp(score, x)
        return pull_back(torch.ones_like(scores))[0]
    with torch.enable_grad():
        try:
            scores = score(x)
            grad = None
            if scores.requires_grad:
                (grad,) = torch.autograd.grad(
                    scores, x, torch.ones_like(scores), create_graph=create_graph, allow_unused=True
                )
        except RuntimeError as error:
            if "nference tensor" in str(error):
                raise RuntimeError(
                    "critic has parameters or buffers made under torch.inference_mode(), which torch cannot "
                    "differentiate: build or load the critic outside inference mode, or clone them there"
                ) from error
            raise
    if grad is None:
        raise ValueError(
            "critic must give an output that depends on its input; no gradient reaches the input: "
            "is it detached, converted to numbers or ignored inside the critic?"
        )
    return grad


def _scores(result: Any, output: int | str | Callable[[Any], Tensor] | None, batch: int) -> Tensor:
    """The critic's scores, (B, ...), picked from what it returned."""
    if callable(output):
        result = output(result)
    elif output is not None:
        try:
            result = result[output]
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError(
                f"output must be an index or key of what the critic returns, got {output!r} for a "
                f"{type(result).__name__}"
            ) from error
    if not isinstance(result, Tensor):
        raise TypeError(
            f"critic must return a tensor of scores, got {type(result).__name__}: "
            "say which part is the score with output="
        )
    if not result.dtype.is_floating_point:
        raise TypeError(f"critic must return real floating scores, got {result.dtype}")
    if result.dim() == 0 or result.shape[0] != batch:
        raise ValueError(
            f"critic must return one row of scores per sample, ({batch},) or ({batch}, ...), got "
            f"{tuple(result.shape)}: a mean over the batch would scale every gradient"
        )
    return result


def _warn_of_batch_norm(critic: nn.Module) -> None:
    if torch.compiler.is_compiling():
        return
    # By hand over the children: modules() takes ten times as long, which shows in a step of a small critic.
    left = [critic]
    while left:
        module = left.pop()
        batch_norm = isinstance(module, nn.modules.batchnorm._BatchNorm)
        if batch_norm and (module.training or module.running_mean is None):
            warnings.warn(
                f"critic holds {type(module).__name__} in training mode or without running statistics, which couples "
                "the samples of a batch: the gradient penalty is defined per sample. Use LayerNorm or GroupNorm, or "
                "call eval() on it",
                UserWarning,
                stacklevel=4,
            )
            return
        left.extend(child for child in module._modules.values() if child is not None)
