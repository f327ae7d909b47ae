"""wasserstein_critic_loss: all that a WGAN-GP critic minimises, in one call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import _checks
from .closed_form import fully_connected_layers, fully_connected_loss
from .critics import Score, runs_its_forward_alone
from .gradient_norms import GradientNorms
from .penalty import gradient_penalty
from .points import penalised_points
from .routes import ROUTES, choose_route


class CriticTerms(NamedTuple):
    """What a critic minimises, and the parts of it."""

    loss: Tensor  # (), penalty - wasserstein
    wasserstein: Tensor  # (), mean D(real) - mean D(fake): the critic's estimate of the distance
    penalty: Tensor  # ()
    norms: Tensor  # the gradient norms, outside the graph


def wasserstein_critic_loss(
    critic: Callable[..., Any],
    real: Tensor,
    fake: Tensor,
    *,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    output: int | str | Callable[[Any], Tensor] | None = None,
    pac: int = 1,
    return_terms: bool = False,
    **penalty: Any,
) -> Tensor | CriticTerms:
    """The critic's loss of WGAN-GP: mean D(fake) - mean D(real) + gradient_penalty(D, real, fake).

    Args:
        critic, args, kwargs, output, pac: as gradient_penalty takes them; args and kwargs go with every call.
        real: (B, ...) samples of the data.
        fake: (B, ...) generated samples, of the same shape and device; a constant here.
        return_terms: also return the parts.
        penalty: any other keyword argument of gradient_penalty, except reduction='none' and return_norms.

    Returns:
        The loss, (), or with return_terms (loss, wasserstein, penalty, norms), where loss = penalty - wasserstein.

    Raises:
        TypeError: as gradient_penalty.
        ValueError: likewise; reduction='none', or samples that are no constants.

    A critic that is an nn.Sequential of fully connected layers and (leaky) ReLUs is one operator, which
    gives the loss with its derivatives. Else real and generated samples go through the critic in one batch where it is
    an nn.Sequential of torch's own layers that treat samples one by one, or one after the other. Loss and parts are
    differentiable as gradient_penalty is.
    Source: Gulrajani et al. 2017, "Improved Training of Wasserstein GANs", Algorithm 1, line 7.
    """
    for name in ("reduction", "return_norms", "detach"):
        if (name, penalty.get(name, True)) in (("reduction", "none"), ("return_norms", False), ("detach", False)):
            raise ValueError(f"{name} must not be {penalty[name]!r} here: the loss is one number, of constant samples")
    penalty.pop("return_norms", None)
    _checks.critic(critic, args, kwargs)
    for name, samples in (("real", real), ("fake", fake)):
        _checks.batched(name, samples)
    _checks.same_shape("real", real, "fake", fake)
    _checks.same_device("real", real, "fake", fake)
    settings = {"args": args, "kwargs": kwargs, "output": output, "pac": pac, **penalty}
    terms = _by_one_operator(critic, real, fake, settings, return_terms)
    if terms is None:
        value, norms = gradient_penalty(critic, real, fake, **settings, return_norms=True)
        score = Score(critic, args, kwargs, output, real.shape[0] // pac)
        wasserstein = _mean_difference(score, real.detach(), fake.detach())
        terms = CriticTerms(value - wasserstein, wasserstein, value, norms)
    return terms if return_terms else terms.loss


# The operator knows no other: a call with anything else goes the general way.
_USUAL = {"args": (), "kwargs": None, "output": None, "pac": 1, "interval": 1, "step": None, "scaler": None}


def _by_one_operator(
    critic: Any, real: Tensor, fake: Tensor, settings: Mapping[str, Any], parts: bool
) -> CriticTerms | None:
    """Loss and parts from one operator; None, before anything is drawn, where it does not serve the call."""
    given = {**gradient_penalty.__kwdefaults__, **settings}
    dtypes = {x.dtype for x in (real, fake, given["noise"]) if isinstance(x, Tensor)}
    if given.keys() != gradient_penalty.__kwdefaults__.keys() or len(dtypes) > 1:
        return None
    if any([given[name] is not usual and given[name] != usual for name, usual in _USUAL.items()]):
        return None
    layers = fully_connected_layers(critic, real)
    if layers is None or not any([param.requires_grad for param in layers.params()]):
        return None
    _checks.due(given["interval"], given["step"])
    norms = GradientNorms.checked(**{name: given[name] for name in GradientNorms._fields})
    plain = norms.plain_settings()
    _checks.choice("route", given["route"], ROUTES)
    if plain is None or choose_route(given["route"], critic, real, norms, detach=True).name != "closed_form":
        return None
    drawn = {name: given[name] for name in ("points", "mix", "noise", "generator", "pac", "detach")}
    terms = fully_connected_loss(layers, penalised_points(real, fake, **drawn), real, fake, plain, parts)
    return CriticTerms(*terms[:3], terms.norms.to(terms.penalty.dtype))


def _mean_difference(score: Score, real: Tensor, fake: Tensor) -> Tensor:
    """mean D(real) - mean D(fake), float32 at least: half floats have no room for sums over a batch."""
    if score.is_bare() and real.dtype == fake.dtype and _treats_samples_alone(score.critic):
        scores = score._replace(rows=2 * score.rows)(torch.cat([real, fake]))
        parts = scores.split(score.rows)
    else:
        parts = score(real), score(fake)
    of_real, of_fake = (part.to(torch.promote_types(part.dtype, torch.float32)).mean() for part in parts)
    return of_real - of_fake


_ONE_BY_ONE = {
    *(nn.Linear, nn.Flatten, nn.Unflatten, nn.Identity, nn.Sequential),
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SiLU, nn.GELU, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.LayerNorm, nn.GroupNorm, nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
    *(nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.Upsample, nn.PixelShuffle),
}


def _treats_samples_alone(critic: Any) -> bool:
    if type(critic) is not nn.Sequential:
        return False
    left = [critic]
    while left:
        module = left.pop()
        if type(module) not in _ONE_BY_ONE or not runs_its_forward_alone(module):
            return False
        if getattr(module, "track_running_stats", False) or getattr(module, "start_dim", 1) == 0:
            return False
        left.extend(module._modules.values())
    return True
