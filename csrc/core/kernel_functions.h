// The kernel functions k(s; theta) and their derivatives, once for every processor.
// s is the squared distance r^2 of two points, or their inner product x.y for kernels of that kind.
//
// A file that includes this defines WGK_ISA (the namespace), WGK_INLINE (inline, and __device__ where that is needed)
// and, for its vectors, exp2_of_negative, log2_one_plus, square_root and reciprocal; hence no guard. V is a vector of
// Real, or Real itself.

namespace wgk {
namespace WGK_ISA {

// A kernel function at s; the letters name what it has been differentiated by: s, or t for theta.
// Callers use some of these only, and what they do not use is never computed.
template <class V>
struct KernelTerms {
  V k, k_s, k_ss, k_t, k_st, k_tt;
};

template <KernelTerm term, class V>
WGK_INLINE V pick(const KernelTerms<V>& terms) {
  switch (term) {
    case KernelTerm::k_s:
      return terms.k_s;
    case KernelTerm::k_ss:
      return terms.k_ss;
    case KernelTerm::k_t:
      return terms.k_t;
    case KernelTerm::k_st:
      return terms.k_st;
    case KernelTerm::k_tt:
      return terms.k_tt;
    default:
      return terms.k;
  }
}

// The terms of a function of s / theta^2.
template <class V, class Real>
WGK_INLINE KernelTerms<V> with_length(V s, Real inverse, V k, V k_s, V k_ss) {
  const V k_t = k_s * s * (-2 * inverse), k_st = (k_s + s * k_ss) * (-2 * inverse);
  return {k, k_s, k_ss, k_t, k_st, (k_st - k_s * inverse) * s * (-2 * inverse)};
}

// 1 / r, and 0 where points coincide: what has a cusp there takes 0 for its derivatives.
template <class V>
WGK_INLINE V inverse_root(V s, V r) {
  return s == 0 ? V{} : reciprocal(r);
}

// Each is made of theta and shape, and says whether it is of r^2 or of x.y, and whether it takes the root of r^2.
struct OfDistance {
  static constexpr bool kOfProducts = false, kOfRoot = false;
};
struct OfRoot {
  static constexpr bool kOfProducts = false, kOfRoot = true;
};
struct OfProducts {
  static constexpr bool kOfProducts = true, kOfRoot = false;
};

// exp(-s / (2 sigma^2)), theta = sigma.
template <class Real>
struct Rbf : OfDistance {
  Real rate, exponent, inverse;  // 1 / (2 sigma^2), the same for powers of 2, 1 / sigma

  WGK_INLINE Rbf(double sigma, double)
      : rate(static_cast<Real>(0.5 / (sigma * sigma))),
        exponent(static_cast<Real>(-0.72134752044448170368 / (sigma * sigma))),  // -log2(e) / 2
        inverse(static_cast<Real>(1 / sigma)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V k = exp2_of_negative(s * exponent), q = s * rate, k_s = k * -rate;
    const V k_t = k * (q * (2 * inverse));
    return {k, k_s, k_s * -rate, k_t, k_s * ((q - 1) * (2 * inverse)), k_t * ((2 * q - 3) * inverse)};
  }
};

// scale / (scale + s), theta = scale.
template <class Real>
struct InverseMultiquadric : OfDistance {
  Real scale;

  WGK_INLINE InverseMultiquadric(double scale, double) : scale(static_cast<Real>(scale)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V inverse = reciprocal(s + scale), k = scale * inverse, k_s = -k * inverse;
    const V square = inverse * inverse, k_t = s * square;
    return {k, k_s, -2 * k_s * inverse, k_t, (scale - s) * (square * inverse), -2 * k_t * inverse};
  }
};

// (1 + s / (2 alpha l^2))^-alpha, theta = l, shape = alpha.
template <class Real>
struct RationalQuadratic : OfDistance {
  Real rate, alpha, inverse;  // 1 / (2 alpha l^2), alpha, 1 / l

  WGK_INLINE RationalQuadratic(double length, double alpha)
      : rate(static_cast<Real>(0.5 / (alpha * length * length))),
        alpha(static_cast<Real>(alpha)),
        inverse(static_cast<Real>(1 / length)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V q = s * rate, slope = reciprocal(q + 1) * rate;
    const V k = exp2_of_negative(log2_one_plus(q) * -alpha), k_s = k * slope * -alpha;
    return with_length(s, inverse, k, k_s, k_s * slope * (-alpha - 1));
  }
};

// exp(-r / sigma), theta = sigma.
template <class Real>
struct Laplacian : OfRoot {
  Real inverse, exponent;  // 1 / sigma, the same for powers of 2

  WGK_INLINE Laplacian(double sigma, double)
      : inverse(static_cast<Real>(1 / sigma)), exponent(static_cast<Real>(-1.4426950408889634074 / sigma)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V r = square_root(s), over_r = inverse_root(s, r);
    const V k = exp2_of_negative(r * exponent), k_s = k * over_r * (inverse / -2);
    return with_length(s, inverse, k, k_s, k_s * over_r * (over_r + inverse) / -2);
  }
};

// (1 + c r) exp(-c r) with c = sqrt(3) / l, theta = l.
template <class Real>
struct Matern32 : OfRoot {
  Real inverse, c, exponent;  // 1 / l, c, the same for powers of 2

  WGK_INLINE Matern32(double length, double)
      : inverse(static_cast<Real>(1 / length)),
        c(static_cast<Real>(1.7320508075688772935 / length)),
        exponent(static_cast<Real>(-2.4988211106473435173 / length)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V r = square_root(s), decay = exp2_of_negative(r * exponent), k_s = decay * (c * c / -2);
    return with_length(s, inverse, (r * c + 1) * decay, k_s, k_s * inverse_root(s, r) * (c / -2));
  }
};

// (1 + c r + c^2 s / 3) exp(-c r) with c = sqrt(5) / l, theta = l.
template <class Real>
struct Matern52 : OfRoot {
  Real inverse, c, exponent;  // 1 / l, c, the same for powers of 2

  WGK_INLINE Matern52(double length, double)
      : inverse(static_cast<Real>(1 / length)),
        c(static_cast<Real>(2.2360679774997896964 / length)),
        exponent(static_cast<Real>(-3.2259641822295608044 / length)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V q = square_root(s) * c, decay = exp2_of_negative(square_root(s) * exponent), third = decay * (c * c / 6);
    return with_length(s, inverse, (q + 1 + q * q / 3) * decay, third * (-1 - q), third * (c * c / 2));
  }
};

// -r, without a parameter.
template <class Real>
struct Energy : OfRoot {
  WGK_INLINE Energy(double, double) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V r = square_root(s), over_r = inverse_root(s, r), k_s = over_r / -2;
    return {-r, k_s, k_s * over_r * over_r / -2, V{}, V{}, V{}};
  }
};

// (s + c)^p for the product s = x.y, theta = c, shape = p, a whole number from 1.
template <class Real>
struct Polynomial : OfProducts {
  Real offset;
  int degree;

  WGK_INLINE Polynomial(double offset, double degree)
      : offset(static_cast<Real>(offset)), degree(static_cast<int>(degree)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V base = s + offset;
    if (degree == 1) {
      const V one = V{} + 1;
      return {base, one, V{}, one, V{}, V{}};
    }
    V power = base * 0 + 1;  // keeps NaN
    for (int i = 2; i < degree; ++i) {
      power *= base;
    }
    const Real p = static_cast<Real>(degree);
    const V k_s = power * base * p, k_ss = power * (p * (p - 1));
    return {power * base * base, k_s, k_ss, k_s, k_ss, k_ss};
  }
};

// Calls f with the kernel function that kind, theta and shape name.
template <class Real, class F>
WGK_INLINE decltype(auto) with_kernel(KernelKind kind, double theta, double shape, const F& f) {
  switch (kind) {
    case KernelKind::inverse_multiquadric:
      return f(InverseMultiquadric<Real>(theta, shape));
    case KernelKind::rational_quadratic:
      return f(RationalQuadratic<Real>(theta, shape));
    case KernelKind::laplacian:
      return f(Laplacian<Real>(theta, shape));
    case KernelKind::matern32:
      return f(Matern32<Real>(theta, shape));
    case KernelKind::matern52:
      return f(Matern52<Real>(theta, shape));
    case KernelKind::energy:
      return f(Energy<Real>(theta, shape));
    case KernelKind::polynomial:
      return f(Polynomial<Real>(theta, shape));
    default:
      return f(Rbf<Real>(theta, shape));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
