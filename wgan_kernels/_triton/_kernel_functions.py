"""The kernel functions k(s; theta), their derivatives, and what a kernel is compiled for of a mixture of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Values on the wire between Python and here, as KernelKind in csrc/core/kernel_pairs.h.
RBF = tl.constexpr(0)
INVERSE_MULTIQUADRIC = tl.constexpr(1)
RATIONAL_QUADRATIC = tl.constexpr(2)
LAPLACIAN = tl.constexpr(3)
MATERN32 = tl.constexpr(4)
MATERN52 = tl.constexpr(5)
ENERGY = tl.constexpr(6)
POLYNOMIAL = tl.constexpr(7)

# What the kernels of a mixture are of: squared distances, inner products, or both.
DISTANCES, PRODUCTS = 1, 2


class Mixture(NamedTuple):
    """kinds: a number with 32 bits for each component, so that a kernel is compiled for it: 4 for its kind, the others
    for the degree of a polynomial. of: DISTANCES + PRODUCTS. shapes: [C] float64, for functions whose shape is not
    compiled for; without such, any [C, Q]. needs_float64: whether a function has a cusp, near which no distance in
    float32 has digits enough."""

    kinds: int
    of: int
    shapes: Tensor
    needs_float64: bool


def mixture(kinds: Sequence[int], shapes: Sequence[float], params: Tensor) -> Mixture:
    products = [kind == POLYNOMIAL.value for kind in kinds]
    codes = [kind + 16 * int(shape) if of else kind for kind, shape, of in zip(kinds, shapes, products)]
    packed = sum(code << (32 * c) for c, code in enumerate(codes))
    of = DISTANCES * (not all(products)) + PRODUCTS * any(products)
    numbers = params
    if RATIONAL_QUADRATIC.value in kinds:
        # Filled on the device: a copy from the host would wait for it, and could not be captured into a graph.
        each = [params.new_full((), shape, dtype=torch.float64) for shape in shapes]
        numbers = torch.stack(each) if len(each) > 1 else each[0]
    return Mixture(packed, of, numbers, LAPLACIAN.value in kinds or ENERGY.value in kinds)


@triton.jit
def log2_one_plus(q):
    """log2(1 + q) for q >= 0, also of a q that 1 + q would round away, and to the last digits of float32, which the
    device's own logarithm lacks near 1."""
    u = 1 + q
    rounded_away = (q - (u - 1)) * 1.4426950408889634 / u
    if q.dtype == tl.float64:
        log = tl.log2(u) + rounded_away
    else:
        bits = u.to(tl.int32, bitcast=True)
        power = (bits - 0x3F3504F3) >> 23  # of the float nearest to sqrt(1 / 2)
        m = (bits - (power << 23)).to(tl.float32, bitcast=True)
        f = (m - 1) / (m + 1)  # log2(m) is a series of artanh(f)
        square = f * f
        series = square * (2.8853900817779268 / 11) + 2.8853900817779268 / 9
        series = series * square + 2.8853900817779268 / 7
        series = series * square + 2.8853900817779268 / 5
        series = series * square + 2.8853900817779268 / 3
        series = series * square + 2.8853900817779268
        log = power.to(tl.float32) + (series * f + rounded_away)
    return tl.where(u < float("inf"), log, u)


@triton.jit
def with_length(s, inverse, k, k_s, k_ss):
    """The terms of a function of s / theta^2. inverse: 1 / theta"""
    k_t, k_st = k_s * s * (-2 * inverse), (k_s + s * k_ss) * (-2 * inverse)
    return k, k_s, k_ss, k_t, k_st, (k_st - k_s * inverse) * s * (-2 * inverse)


@triton.jit
def inverse_root(s, r):
    """1 / r, and 0 where points coincide: what has a cusp there takes 0 for its derivatives."""
    return tl.where(s == 0, 0.0, 1 / tl.where(s == 0, 1.0, r))


@triton.jit
def kernel_terms(s, theta, shape, CODE: tl.constexpr):
    """k, k_s, k_ss, k_t, k_st, k_tt: the kernel function and what it is differentiated by, s or t for theta.

    s: squared distances, or inner products for a kernel of these; theta, shape: float64, of which the constants are
    made before they are rounded to the dtype of s; CODE: of the component, as Mixture.kinds has it.
    """
    KIND: tl.constexpr = CODE & 15
    if KIND == RBF:
        rate = (0.5 / (theta * theta)).to(s.dtype)
        inverse = (1 / theta).to(s.dtype)
        q = s * rate
        k = tl.exp(-q)
        k_s = -k * rate
        k_t = k * (q * (2 * inverse))
        return k, k_s, -k_s * rate, k_t, k_s * ((q - 1) * (2 * inverse)), k_t * ((2 * q - 3) * inverse)
    elif KIND == INVERSE_MULTIQUADRIC:
        scale = theta.to(s.dtype)
        inverse = 1 / (s + scale)
        k = scale * inverse
        square = inverse * inverse
        k_s, k_t = -k * inverse, s * square
        return k, k_s, -2 * k_s * inverse, k_t, (scale - s) * (square * inverse), -2 * k_t * inverse
    elif KIND == POLYNOMIAL:
        return polynomial_terms(s + theta.to(s.dtype), CODE >> 4)
    elif KIND == RATIONAL_QUADRATIC:
        rate, alpha = (0.5 / (shape * theta * theta)).to(s.dtype), shape.to(s.dtype)
        q = s * rate
        k, slope = tl.exp2(log2_one_plus(q) * -alpha), rate / (1 + q)
        k_s = k * slope * -alpha
        return with_length(s, (1 / theta).to(s.dtype), k, k_s, k_s * slope * (-alpha - 1))
    else:
        return terms_of_root(s, theta, KIND)


@triton.jit
def polynomial_terms(base, DEGREE: tl.constexpr):
    """kernel_terms of base^DEGREE, base = s + theta."""
    if DEGREE == 1:
        one, zero = tl.full(base.shape, 1.0, base.dtype), tl.zeros_like(base)
        return base, one, zero, one, zero, zero
    else:
        power = base * 0 + 1  # keeps NaN
        for _ in range(2, DEGREE):
            power *= base
        k_s, k_ss = power * base * DEGREE, power * (DEGREE * (DEGREE - 1))
        return power * base * base, k_s, k_ss, k_s, k_ss, k_ss


@triton.jit
def terms_of_root(s, theta, KIND: tl.constexpr):
    """kernel_terms of functions of r = sqrt(s)."""
    r = tl.sqrt(s)
    if KIND == ENERGY:
        over_r, zero = inverse_root(s, r), tl.zeros_like(s)
        k_s = over_r / -2
        return -r, k_s, k_s * over_r * over_r / -2, zero, zero, zero
    else:
        inverse = (1 / theta).to(s.dtype)
        if KIND == LAPLACIAN:
            k, over_r = tl.exp2(r * (-1.4426950408889634 / theta).to(s.dtype)), inverse_root(s, r)
            k_s = k * over_r * (inverse / -2)
            k_ss = k_s * over_r * (over_r + inverse) / -2
        elif KIND == MATERN32:
            c = (1.7320508075688773 / theta).to(s.dtype)
            decay = tl.exp2(r * (-2.4988211106473435 / theta).to(s.dtype))
            k, k_s = (r * c + 1) * decay, decay * (c * c / -2)
            k_ss = k_s * inverse_root(s, r) * (c / -2)
        else:
            c = (2.23606797749979 / theta).to(s.dtype)
            decay = tl.exp2(r * (-3.2259641822295608 / theta).to(s.dtype))
            q, third = r * c, decay * (c * c / 6)
            k, k_s, k_ss = (q + 1 + q * q / 3) * decay, third * (-1 - q), third * (c * c / 2)
        return with_length(s, inverse, k, k_s, k_ss)


@triton.jit
def kernel_term(s, theta, shape, CODE: tl.constexpr, TERM: tl.constexpr):
    """The one of kernel_terms that TERM counts."""
    k, k_s, k_ss, k_t, k_st, k_tt = kernel_terms(s, theta, shape, CODE)
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
def distance_scale(theta, shape, KIND: tl.constexpr):
    """The squared distance over which a kernel function of distances changes; 0 where it has a cusp."""
    if KIND == RBF:
        return 2 * theta * theta
    elif KIND == RATIONAL_QUADRATIC:
        return 2 * theta * theta * tl.minimum(shape, 1.0)
    elif KIND == MATERN32:
        return theta * theta * 2 / 3
    elif KIND == MATERN52:
        return theta * theta
    elif KIND == INVERSE_MULTIQUADRIC:
        return theta
    else:
        return theta * 0
