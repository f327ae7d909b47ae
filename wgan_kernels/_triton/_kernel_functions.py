"""The kernel functions k(s; theta) of the squared distance s of two points, and their derivatives."""

from __future__ import annotations

import triton
import triton.language as tl

# Values on the wire between Python and here, as KernelKind in csrc/core/kernel_pairs.h; 4 bits of a number for each
# component, so that a kernel is compiled for its kinds.
RBF = tl.constexpr(0)
INVERSE_MULTIQUADRIC = tl.constexpr(1)


def pack_kinds(kinds: list[int]) -> int:
    return sum(kind << (4 * c) for c, kind in enumerate(kinds))


@triton.jit
def kernel_terms(s, theta, KIND: tl.constexpr):
    """k, k_s, k_ss, k_t, k_st, k_tt: the kernel function and what it is differentiated by, s or t for theta.

    theta: float64, of which the constants are made before they are rounded to the dtype of s.
    """
    if KIND == RBF:
        rate = (0.5 / (theta * theta)).to(s.dtype)
        inverse = (1 / theta).to(s.dtype)
        q = s * rate
        k = tl.exp(-q)
        k_s = -k * rate
        k_t = k * (q * (2 * inverse))
        return k, k_s, -k_s * rate, k_t, k_s * ((q - 1) * (2 * inverse)), k_t * ((2 * q - 3) * inverse)
    else:
        scale = theta.to(s.dtype)
        inverse = 1 / (s + scale)
        k = scale * inverse
        square = inverse * inverse
        k_s, k_t = -k * inverse, s * square
        return k, k_s, -2 * k_s * inverse, k_t, (scale - s) * (square * inverse), -2 * k_t * inverse


@triton.jit
def kernel_term(s, theta, KIND: tl.constexpr, TERM: tl.constexpr):
    """The one of kernel_terms that TERM counts."""
    k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(s, theta, KIND)
    if TERM == 0:
        return k
    elif TERM == 1:
        return k_s
    elif TERM == 2:
        return k_ss
    elif TERM == 3:
        return k_t
    elif TERM == 4:
        return k_st
    else:
        return k_tt


@triton.jit
def distance_scale(theta, KIND: tl.constexpr):
    """The squared distance over which a kernel function changes."""
    if KIND == RBF:
        return 2 * theta * theta
    else:
        return theta
