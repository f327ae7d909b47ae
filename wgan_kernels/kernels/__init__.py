"""Kernel functions for maximum mean discrepancies, as small value objects.

r is the Euclidean distance of two points. Kernels are added with `+` and weighted with `*`, as in
`0.5 * RBF(1.0) + Linear()`, and such a sum is computed in one pass over the pairs of points. A parameter that is
a sequence of numbers makes a sum of kernels, one for each. Bandwidths, scales, lengthscales, gamma, coef0 and weights
may also be tensors, which are read at every call and get gradients where they require them: learned kernels. They have
to stay positive; numbers are checked when the kernel is made, tensors are not.
"""

from .composition import Kernel
from .custom import Custom
from .functions import (
    RBF,
    WAE_SCALES,
    Energy,
    InverseMultiquadric,
    Laplacian,
    Linear,
    Matern,
    Polynomial,
    RationalQuadratic,
)

__all__ = [
    "RBF",
    "WAE_SCALES",
    "Custom",
    "Energy",
    "InverseMultiquadric",
    "Kernel",
    "Laplacian",
    "Linear",
    "Matern",
    "Polynomial",
    "RationalQuadratic",
]
