"""What a gradient penalty makes of the gradients: which norms, and what they cost."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _checks
from .ops.norm_penalty import weighted_norm_penalty

REDUCTIONS = (*_checks.REDUCTIONS, "max")


class GradientNorms(NamedTuple):
    """weight * reduce(sample_weight * (||g_i|| - target)^2), a function of the gradient g."""

    weight: float
    target: float
    one_sided: bool
    reduction: str  # of REDUCTIONS
    norm_dims: tuple[int, ...] | None  # None takes every dimension but the first
    pac: int
    sample_weight: Tensor | None  # (B / pac,)

    @classmethod
    def checked(
        cls, *, weight: float, norm_dims: int | Sequence[int] | None, interval: int = 1, **settings: Any
    ) -> GradientNorms:
        """From the arguments of gradient_penalty."""
        weight = _checks.number("weight", weight) * interval
        _checks.penalty(settings["target"], settings["one_sided"], settings["reduction"], REDUCTIONS)
        _checks.positive_integer("pac", settings["pac"])
        if settings["sample_weight"] is not None:
            _checks.floating("sample_weight", settings["sample_weight"])
        if norm_dims is not None:
            dims = norm_dims if isinstance(norm_dims, (tuple, list)) else (norm_dims,)
            if any([isinstance(dim, bool) or not isinstance(dim, int) for dim in dims]):
                raise TypeError(f"norm_dims must be a whole number or a sequence of them, got {norm_dims!r}")
            norm_dims = tuple(dims)
            if settings["pac"] > 1:
                raise ValueError(f"norm_dims must be None with pac={settings['pac']}: a norm is that of a whole group")
        return cls(weight=weight, norm_dims=norm_dims, **settings)

    def check_fit(self, x: Tensor) -> None:
        """Whether the settings suit samples (B, ...)."""
        if self.norm_dims is not None:
            dims = [d + x.dim() if d < 0 else d for d in self.norm_dims]
            if not dims or len({*dims}) < len(dims) or not all(0 < d < x.dim() for d in dims):
                raise ValueError(
                    f"norm_dims must name dimensions of the samples, {tuple(x.shape)}, other than the first, each "
                    f"once; got {self.norm_dims}"
                )
        if self.reduction == "max" and 0 in self._shape(x):
            raise ValueError(f"reduction must not be 'max' over no norms at all: the samples are {tuple(x.shape)}")
        if self.sample_weight is not None:
            wanted, got = (x.shape[0] // self.pac,), tuple(self.sample_weight.shape)
            if got != wanted:
                raise ValueError(f"sample_weight must have one number per sample (or group), {wanted}, got {got}")
            _checks.same_device("the samples", x, "sample_weight", self.sample_weight)

    def plain_settings(self) -> dict[str, Any] | None:
        """As norm_penalty takes them; None where it does not know such a penalty."""
        if self.norm_dims is not None or self.pac > 1 or self.sample_weight is not None or self.reduction == "max":
            return None
        return {
            "target": self.target,
            "one_sided": self.one_sided,
            "reduction": self.reduction,
            "weight": self.weight,
        }

    def penalty(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """The penalty and the norms, (B / pac, ...) float64, of the gradient by the samples, (B, ...)."""
        plain = self.plain_settings()
        if plain is not None:
            return weighted_norm_penalty(gradient, **plain)
        shape, rows = self._rows(gradient)
        penalties, norms = weighted_norm_penalty(
            rows, target=self.target, one_sided=self.one_sided, reduction="none", weight=self.weight
        )
        penalties, norms = penalties.reshape(shape), norms.reshape(shape)
        if self.sample_weight is not None:
            factor = self.sample_weight.detach().to(penalties.dtype)
            penalties = penalties * factor.reshape(-1, *[1] * (penalties.dim() - 1))
        return self._reduced(penalties), norms

    def _reduced(self, penalties: Tensor) -> Tensor:
        if self.reduction == "none":
            return penalties
        return {"mean": torch.mean, "sum": torch.sum, "max": torch.max}[self.reduction](penalties)

    def _shape(self, x: Tensor) -> tuple[int, ...]:
        """Of the norms of samples, or of groups of them."""
        inner = [d % x.dim() for d in self.norm_dims or range(1, x.dim())]
        return tuple(size for d, size in enumerate(x.shape) if d not in inner)

    def _rows(self, gradient: Tensor) -> tuple[tuple[int, ...], Tensor]:
        """The shape of the norms, and the gradient with one row for each of them."""
        if self.pac > 1:
            gradient = gradient.reshape(gradient.shape[0] // self.pac, self.pac, *gradient.shape[1:])
        if self.norm_dims is None:
            return self._shape(gradient), gradient
        inner = [d % gradient.dim() for d in self.norm_dims]
        outer = [d for d in range(gradient.dim()) if d not in inner]
        return self._shape(gradient), gradient.permute(*outer, *inner).flatten(0, len(outer) - 1)
