"""gradient_penalty: the penalty of WGAN-GP and its kin."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _checks
from .critics import Score, warn_of_batch_norm
from .gradient_norms import GradientNorms
from .points import in_groups, penalised_points
from .routes import ROUTES, Route, explained, penalty_by_route

# What gradients start from under a GradScaler: six bits more for small ones, and room for sums over a batch.
HALF_SEED = 64.0


def gradient_penalty(
    critic: Callable[..., Any],
    real: Tensor | None,
    fake: Tensor | None,
    *,
    weight: float = 10.0,
    target: float = 1.0,
    one_sided: bool = False,
    points: str = "mixed",
    mix: Tensor | None = None,
    noise: Tensor | None = None,
    generator: torch.Generator | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: int | str | Callable[[Any], Tensor] | None = None,
    reduction: str = "mean",
    sample_weight: Tensor | None = None,
    norm_dims: int | Sequence[int] | None = None,
    pac: int = 1,
    interval: int = 1,
    step: int | None = None,
    scaler: torch.amp.GradScaler | None = None,
    route: str = "auto",
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
        points: where the gradient is taken: 'mixed', at 'real' or 'fake' (R1, R2), or between real samples and noisy
            ones ('dragan': fake is real + noise). What is not used may be None.
        mix: (B,) or (B, 1, ...) mixing numbers, one per sample; None draws them uniformly from [0, 1).
        noise: (B, ...) what 'dragan' adds to the real samples; None draws it uniformly from [0, 0.5 * std(real)).
        generator: the torch generator to draw mix and noise from; None takes torch's default.
        args, kwargs: passed on to the critic after x: labels, embeddings.
        output: which part of the critic's output is the score: an index or key, or a function of the output.
        reduction: 'mean', 'sum' or 'max' over norms, or 'none'.
        sample_weight: (B / pac,) factors of the samples' penalties; the mean still divides by their number.
        norm_dims: the dimensions of x that a norm is taken over; None takes all but the first. 1 gives one norm for
            each pixel of (B, C, H, W): norms (B, H, W).
        pac: how many samples in a row the critic judges together; it returns B / pac rows of scores, and a norm and a
            mixing number belong to such a group.
        interval, step: on steps that `interval` does not divide, the penalty is 0 and the critic is not called; on
            the others it counts `interval` times.
        scaler: the GradScaler of a training in float16; its gradients are then taken of scores scaled up.
        route: how it is differentiated by the critic's parameters: 'closed_form' (layer by layer, without a graph of
            the second order; once), 'double_backward' (by autograd), 'functional' (by torch.func). 'auto' takes
            closed_form where critic and call allow it, functional under torch.compile and torch.func, else
            double_backward. Values and gradients are the same; see `explain_route`.
        return_norms: also return the gradient norms.
        detach: treat real, fake and mix as constants. False lets their gradients through.

    Returns:
        The penalty, float64 for float64 samples, else float32, and with `return_norms` also the norms, (B / pac,) or
        what norm_dims leaves, of the same dtype, outside the graph (none, (0,), on a step without a penalty).

    Raises:
        TypeError: an argument of a wrong type; an output that is no floating tensor.
        ValueError: shapes or devices that differ; a score without one row per sample; a critic whose output does not
            depend on its input; a route that critic or call do not allow.
        RuntimeError: a critic whose parameters were made under inference mode, which torch cannot differentiate.
        NotImplementedError, from backward: a second derivative where the closed form gave the first.

    Differentiable once by the critic's parameters in closed form, which is what a training step needs; twice on the
    other routes, and by the samples with detach=False. Under `torch.no_grad()` and `torch.inference_mode()` it gives
    the value. Where a gradient is 0 its derivative is 0, never NaN.
    Compiled critics, and compiled parts of them, run as the modules that they were made of.
    Warns when the critic holds batch normalisation in training mode, which couples the samples that the penalty
    takes one by one. Deterministic for a given mix as far as the critic is.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", equation 3 and Algorithm 1. R1, R2:
    Mescheder et al. 2018, "Which Training Methods for GANs do actually Converge?", equation 9; 'dragan': Kodali et
    al. 2017, "On Convergence and Stability of GANs", section 2.3; pac: Lin et al. 2018, "PacGAN"; interval: Karras et
    al. 2020, "Analyzing and Improving the Image Quality of StyleGAN", section 2 (lazy regularisation).
    """
    _checks.critic(critic, args, kwargs)
    due = _checks.due(interval, step)
    norms = GradientNorms.checked(
        weight=weight,
        interval=interval,
        target=target,
        one_sided=one_sided,
        reduction=reduction,
        norm_dims=norm_dims,
        pac=pac,
        sample_weight=sample_weight,
    )
    _checks.choice("route", route, ROUTES)
    if scaler is not None and not isinstance(scaler, torch.amp.GradScaler):
        raise TypeError(f"scaler must be a torch.amp.GradScaler, got {type(scaler).__name__}")
    sample = fake if points == "fake" else real
    if isinstance(sample, Tensor) and sample.dim() > 0:
        norms.check_fit(sample)

    def compute() -> tuple[Tensor, Tensor]:
        if not due:
            return _skipped(sample)
        x = penalised_points(
            real, fake, points=points, mix=mix, noise=noise, generator=generator, pac=pac, detach=detach
        )
        seed = HALF_SEED if scaler is not None and scaler.is_enabled() else 1.0
        return penalty_by_route(route, Score(critic, args, kwargs, output, x.shape[0] // pac), x, norms, detach, seed)

    warn_of_batch_norm(critic)
    if not torch.compiler.is_compiling() and torch.is_inference_mode_enabled():
        # Tensors made in here must be ordinary ones: autograd takes no others.
        with torch.inference_mode(False), torch.no_grad():
            penalty, found = compute()
    else:
        penalty, found = compute()
    return (penalty, found.to(penalty.dtype)) if return_norms else penalty


with torch.inference_mode(False):
    # A graph that is being compiled has a backward only by what requires grad; by no numbers, this has nothing to do.
    _NOTHING = torch.empty(0, device="cpu", requires_grad=True)


def _skipped(sample: Any) -> tuple[Tensor, Tensor]:
    """A penalty of 0 whose backward may be called as on any other step, and no norms."""
    _checks.batched("real and fake", sample)
    dtype = torch.promote_types(sample.dtype, torch.float32)
    norms = sample.new_zeros(0, dtype=dtype)
    if torch.compiler.is_compiling():
        return (sample.new_zeros((), dtype=dtype) + _NOTHING.sum()).to(dtype), norms
    return sample.new_zeros((), dtype=dtype, requires_grad=torch.is_grad_enabled()), norms


def explain_route(
    critic: Callable[..., Any],
    sample: Tensor,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: int | str | Callable[[Any], Tensor] | None = None,
    pac: int = 1,
) -> Route:
    """How gradient_penalty(critic, ..., route='auto') is differentiated, and why.

    Args:
        critic, args, kwargs, output, pac: as gradient_penalty takes them.
        sample: (B, ...) samples such as the critic will see; one is enough, or one group of `pac`.

    Returns:
        (name, reason): 'closed_form', 'functional' or 'double_backward', and what decided.

    Raises:
        TypeError: a critic that cannot be called; a sample that is no floating tensor.
        ValueError: what gradient_penalty would refuse.

    Runs the critic once and puts its buffers and torch's random numbers back afterwards.
    """
    _checks.critic(critic, args, kwargs)
    _checks.batched("sample", sample)
    norms = GradientNorms.checked(
        weight=1.0, target=1.0, one_sided=False, reduction="mean", norm_dims=None, pac=pac, sample_weight=None
    )
    groups = in_groups("sample", sample, pac).shape[0]
    return explained(Score(critic, args, kwargs, output, groups), sample.detach(), norms)
