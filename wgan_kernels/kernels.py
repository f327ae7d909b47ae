"""Kernel functions for maximum mean discrepancies, as small value objects.

r is the Euclidean distance of two points. Each parameter is one number or a sequence of numbers; the kernel is then
the sum over them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from . import _checks


class Kernel:
    """A sum of kernel functions: the kind of each (the name of its formula) and its parameter."""

    kinds: tuple[str, ...]
    params: tuple[float, ...]

    def _set_components(self, kind: str, params: tuple[float, ...]) -> None:
        # Once, so that a call in a training loop does not check the same numbers again; dataclasses here are frozen.
        object.__setattr__(self, "params", params)
        object.__setattr__(self, "kinds", (kind,) * len(params))


def _positive_numbers(name: str, value: float | Sequence[float]) -> tuple[float, ...]:
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{name} must hold at least one number, got an empty {type(value).__name__}")
        return tuple(_checks.positive(f"{name}[{index}]", entry) for index, entry in enumerate(value))
    return (_checks.positive(name, value),)


@dataclass(frozen=True)
class RBF(Kernel):
    """Gaussian kernel exp(-r^2 / (2 * bandwidth^2)); bandwidth > 0 in the units of the data.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", section 2.
    """

    bandwidth: float | Sequence[float]

    def __post_init__(self) -> None:
        bandwidths = _positive_numbers("bandwidth", self.bandwidth)
        for bandwidth in bandwidths:
            if not 1e-150 < bandwidth < 1e150:
                raise ValueError(f"bandwidth must have a square that float64 holds, got {bandwidth}")
        self._set_components("rbf", bandwidths)


@dataclass(frozen=True)
class InverseMultiquadric(Kernel):
    """Inverse multiquadric kernel scale / (scale + r^2); scale > 0 in the units of the data squared.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4.
    """

    scale: float | Sequence[float]

    def __post_init__(self) -> None:
        self._set_components("inverse_multiquadric", _positive_numbers("scale", self.scale))
