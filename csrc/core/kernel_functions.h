// The kernel functions k(s; theta) and their derivatives, once for every processor.
// s is the squared distance r^2 of two points, or their inner product x.y for kernels of that kind.
//
// A file that includes this defines WGK_ISA (the namespace), WGK_INLINE (inline, and __device__ where that is needed)
// and, for its vectors, exp2_of_negative and reciprocal; hence no guard. V is a vector of Real, or Real itself.

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

// exp(-s / (2 sigma^2)), theta = sigma.
template <class Real>
struct Rbf {
  static constexpr bool kOfDistance = true;
  Real rate, exponent, inverse;  // 1 / (2 sigma^2), the same for powers of 2, 1 / sigma

  WGK_INLINE explicit Rbf(double sigma)
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
struct InverseMultiquadric {
  static constexpr bool kOfDistance = true;
  Real scale;

  WGK_INLINE explicit InverseMultiquadric(double scale) : scale(static_cast<Real>(scale)) {}

  template <class V>
  WGK_INLINE KernelTerms<V> operator()(V s) const {
    const V inverse = reciprocal(s + scale), k = scale * inverse, k_s = -k * inverse;
    const V square = inverse * inverse, k_t = s * square;
    return {k, k_s, -2 * k_s * inverse, k_t, (scale - s) * (square * inverse), -2 * k_t * inverse};
  }
};

// Calls f with the kernel function that kind and theta name.
template <class Real, class F>
WGK_INLINE decltype(auto) with_kernel(KernelKind kind, double theta, const F& f) {
  switch (kind) {
    case KernelKind::inverse_multiquadric:
      return f(InverseMultiquadric<Real>(theta));
    default:
      return f(Rbf<Real>(theta));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
