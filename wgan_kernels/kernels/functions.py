"""The kernel functions that the operators know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .. import _checks
from .composition import Components, Kernel, column

Parameter = float | Sequence[float] | Tensor

# The scales by which Tolstikhin et al. 2018 multiply the one of their prior.
WAE_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class _OneParameter(Kernel):
    """A kernel whose functions take one parameter each. Made once where all is numbers, as calls are many."""

    kind: ClassVar[str]
    parameter: ClassVar[str] = ""  # the name of the field
    _components: Components

    def _set(self, params: tuple[float, ...] | Tensor, shapes: tuple[float, ...] = (1.0,), kind: str = "") -> None:
        given = params.numel() if isinstance(params, Tensor) else len(params)
        count = max(len(shapes), given)
        fixed = () if isinstance(params, Tensor) else params * (count // given)
        made = Components((kind or self.kind,) * count, shapes * (count // len(shapes)), fixed, None)
        object.__setattr__(self, "_components", made)  # dataclasses here are frozen
        for name, value in vars(self).items():
            if isinstance(value, list):
                object.__setattr__(self, name, tuple(value))  # so that kernels can be compared and be keys

    def _made(self, features: int) -> Components:
        made, param = self._components, getattr(self, self.parameter, None)
        if isinstance(param, Tensor):
            return made._replace(params=param.double().reshape(-1, 1).expand(len(made.kinds), 1))
        return made


def _positive_numbers(name: str, value: Parameter) -> tuple[float, ...] | Tensor:
    if isinstance(value, Tensor):
        _checks.floating(name, value)
        if value.dim() > 1 or value.numel() == 0:
            raise ValueError(f"{name} must be a tensor of one number or of a row of them, got {tuple(value.shape)}")
        return value
    if isinstance(value, (list, tuple)):
        if not value:
            raise ValueError(f"{name} must hold at least one number, got an empty {type(value).__name__}")
        return tuple(_checks.positive(f"{name}[{index}]", entry) for index, entry in enumerate(value))
    return (_checks.positive(name, value),)


def _lengths(name: str, value: Parameter) -> tuple[float, ...] | Tensor:
    lengths = _positive_numbers(name, value)
    for length in () if isinstance(lengths, Tensor) else lengths:
        if not 1e-150 < length < 1e150:
            raise ValueError(f"{name} must have a square that float64 holds, got {length}")
    return lengths


@dataclass(frozen=True)
class RBF(_OneParameter):
    """Gaussian kernel exp(-r^2 / (2 * bandwidth^2)); bandwidth > 0 in the units of the data.

    Source: Gretton et al. 2012, "A Kernel Two-Sample Test", section 2.
    """

    bandwidth: Parameter
    kind: ClassVar[str] = "rbf"
    parameter: ClassVar[str] = "bandwidth"

    def __post_init__(self) -> None:
        self._set(_lengths("bandwidth", self.bandwidth))


@dataclass(frozen=True)
class InverseMultiquadric(_OneParameter):
    """Inverse multiquadric kernel scale / (scale + r^2); scale > 0 in the units of the data squared.

    Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4.
    """

    scale: Parameter
    kind: ClassVar[str] = "inverse_multiquadric"
    parameter: ClassVar[str] = "scale"

    def __post_init__(self) -> None:
        self._set(_positive_numbers("scale", self.scale))

    @classmethod
    def for_prior(
        cls, features: int, variance: float = 1.0, scales: Sequence[float] = WAE_SCALES
    ) -> InverseMultiquadric:
        """The kernel of a WAE-MMD whose codes have so many features and a normal prior of that variance.

        C = 2 * features * variance, the expected squared distance of two codes, times each of the scales; scales=(1.0,)
        is the kernel of the paper's text, the default the sum that its experiments use.
        Source: Tolstikhin et al. 2018, "Wasserstein Auto-Encoders", section 4.
        """
        scale = 2 * _checks.positive_integer("features", features) * _checks.positive("variance", variance)
        return cls([scale * each for each in _positive_numbers("scales", scales)])


@dataclass(frozen=True)
class RationalQuadratic(_OneParameter):
    """Rational quadratic kernel (1 + r^2 / (2 * alpha * lengthscale^2))^-alpha; alpha, lengthscale > 0.

    A sequence of alphas makes a sum, of one lengthscale or of as many.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equation 4.19; Binkowski et al. 2018,
    "Demystifying MMD GANs", section 2.1.
    """

    alpha: float | Sequence[float]
    lengthscale: Parameter = 1.0
    kind: ClassVar[str] = "rational_quadratic"
    parameter: ClassVar[str] = "lengthscale"

    def __post_init__(self) -> None:
        if isinstance(self.alpha, Tensor):
            raise TypeError("alpha must be a number or a sequence of numbers: it is not learned; lengthscale may be")
        alphas, lengths = _positive_numbers("alpha", self.alpha), _lengths("lengthscale", self.lengthscale)
        count = lengths.numel() if isinstance(lengths, Tensor) else len(lengths)
        if 1 not in (len(alphas), count) and len(alphas) != count:
            raise ValueError(f"lengthscale must be one number or as many as alpha, {len(alphas)}, got {count}")
        self._set(lengths, alphas)


@dataclass(frozen=True)
class Laplacian(_OneParameter):
    """Laplacian kernel exp(-r / bandwidth); bandwidth > 0 in the units of the data.

    r is Euclidean, not the sum of absolute differences that some libraries take. Where two points coincide the kernel
    has a cusp, and 0 is taken for its derivatives.
    """

    bandwidth: Parameter
    kind: ClassVar[str] = "laplacian"
    parameter: ClassVar[str] = "bandwidth"

    def __post_init__(self) -> None:
        self._set(_lengths("bandwidth", self.bandwidth))


@dataclass(frozen=True)
class Matern(_OneParameter):
    """Matern kernel of smoothness nu = 1/2, 3/2 or 5/2; lengthscale > 0 in the units of the data.

    exp(-a), (1 + a) exp(-a) or (1 + a + a^2 / 3) exp(-a) with a = sqrt(2 nu) r / lengthscale; nu = 1/2 is Laplacian.
    Source: Rasmussen & Williams 2006, "Gaussian Processes for Machine Learning", equation 4.17.
    """

    nu: float
    lengthscale: Parameter = 1.0
    parameter: ClassVar[str] = "lengthscale"

    def __post_init__(self) -> None:
        kinds = {0.5: "laplacian", 1.5: "matern32", 2.5: "matern52"}
        if not isinstance(self.nu, (int, float)) or self.nu not in kinds:
            raise ValueError(f"nu must be 1/2, 3/2 or 5/2, got {self.nu}")
        self._set(_lengths("lengthscale", self.lengthscale), kind=kinds[self.nu])


@dataclass(frozen=True)
class Energy(_OneParameter):
    """-r, with which the squared MMD is half the energy distance. Where points coincide 0 is taken for its derivatives.

    Source: Sejdinovic et al. 2013, "Equivalence of distance-based and RKHS-based statistics", section 3.
    """

    kind: ClassVar[str] = "energy"

    def __post_init__(self) -> None:
        self._set((1.0,))


@dataclass(frozen=True)
class Polynomial(Kernel):
    """Polynomial kernel (gamma * x.y + coef0)^degree; degree a whole number from 1 to 32, gamma > 0, coef0 >= 0.

    gamma None stands for 1 / the number of features: with degree 3 and coef0 1 the kernel of KID.
    Source: Binkowski et al. 2018, "Demystifying MMD GANs", section 4.
    """

    degree: int = 3
    gamma: float | Tensor | None = None
    coef0: float | Tensor = 1.0

    def __post_init__(self) -> None:
        if _checks.positive_integer("degree", self.degree) > 32:
            raise ValueError(f"degree must be at most 32, got {self.degree}")
        for name, value, check in (
            ("gamma", self.gamma, _checks.positive),
            ("coef0", self.coef0, _checks.non_negative),
        ):
            if isinstance(value, Tensor):
                _checks.floating(name, value)
                if value.numel() != 1:
                    raise ValueError(f"{name} must be one number, got a tensor of shape {tuple(value.shape)}")
            elif value is not None:
                check(name, value)
        numbers = [value for value in (self.gamma, self.coef0) if value is not None and not isinstance(value, Tensor)]
        if len(numbers) == 2 and not (numbers[0] ** self.degree > 1e-290 and numbers[1] / numbers[0] < 1e290):
            raise ValueError(f"gamma must have a power and a quotient with coef0 that float64 holds, got {self.gamma}")

    def _made(self, features: int) -> Components:
        # (gamma x.y + c)^p = gamma^p (x.y + c / gamma)^p
        gamma, coef0 = 1 / max(features, 1) if self.gamma is None else self.gamma, self.coef0
        gamma, coef0 = (v.double() if isinstance(v, Tensor) else float(v) for v in (gamma, coef0))
        return Components(
            ("polynomial",), (float(self.degree),), column([coef0 / gamma]), column([gamma**self.degree], 0)
        )


@dataclass(frozen=True)
class Linear(_OneParameter):
    """x.y, with which the squared MMD is the squared distance of the means."""

    kind: ClassVar[str] = "polynomial"

    def __post_init__(self) -> None:
        self._set((0.0,))
