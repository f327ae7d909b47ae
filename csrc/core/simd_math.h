// Elementary functions on vectors. Included after simd.h, hence once per instruction set and without a guard.

namespace wgk {
namespace WGK_ISA {

// The bits of a float or double: 2^n has the exponent field n + kBias, and adding kRound rounds to an integer.
template <class T>
struct FloatBits;
template <>
struct FloatBits<float> {
  using Bits = int32_t;
  static constexpr int kMantissa = 23, kBias = 127;
  static constexpr Bits kRootHalf = 0x3f3504f3;
  static constexpr float kRound = 12582912.0f, kMax = FLT_MAX;  // 1.5 * 2^23
};
template <>
struct FloatBits<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr Bits kRootHalf = 0x3fe6a09e667f3bcd;
  static constexpr double kRound = 6755399441055744.0, kMax = DBL_MAX;  // 1.5 * 2^52
};

// 2^f for |f| <= 1/2, relative error 2e-9 (float) and 3e-18 (double): minimax polynomials (Remez), exact at 0.
WGK_INLINE vfloat exp2_fraction(vfloat f) {
  vfloat p = splat<vfloat>(1.5345812161311629759e-4f);
  for (const float c : {1.3399931177239737967e-3f, 9.6184889563311816196e-3f, 5.5503287771053247990e-2f,
                        2.4022646890645520696e-1f, 6.9314720573719575134e-1f, 1.0f}) {
    p = fma(p, f, splat<vfloat>(c));
  }
  return p;
}

WGK_INLINE vdouble exp2_fraction(vdouble f) {
  vdouble p = splat<vdouble>(4.4352827069572771511e-10);
  for (const double c : {7.0741056135081427963e-9, 1.0178198021671930844e-7, 1.321543308967639918e-6,
                         1.5252733489988525649e-5, 1.5403530462514434953e-4, 1.3333558146789921722e-3,
                         9.6181291075883352443e-3, 5.5504108664819921605e-2, 2.4022650695910156204e-1,
                         6.9314718055994533046e-1, 1.0}) {
    p = fma(p, f, splat<vdouble>(c));
  }
  return p;
}

// log2(1 + q) for q >= 0, also of a q that 1 + q would round away; infinity and NaN stay what they are. 1 + q is
// 2^power m with m in [sqrt(1/2), sqrt(2)], and log(m) the series of artanh((m - 1) / (m + 1)), as long as T has
// digits.
template <class V>
WGK_INLINE V log2_one_plus(V q) {
  using T = std::remove_reference_t<decltype(q[0])>;
  using Float = FloatBits<T>;
  using Bits = vec<typename Float::Bits, sizeof(V) / sizeof(T)>;
  constexpr int kTerms = sizeof(T) == 8 ? 11 : 5;
  const V v = q + 1;
  const Bits bits = load_bytes<Bits>(&v), power = (bits - Float::kRootHalf) >> Float::kMantissa;
  const Bits mantissa = bits - (power << Float::kMantissa);
  const V m = load_bytes<V>(&mantissa);
  const V u = (power == 0 ? q : m - 1) / (power == 0 ? q + 2 : m + 1), square = u * u;
  V sum = splat<V>(static_cast<T>(2.8853900817779268147 / (2 * kTerms + 1)));  // 2 log2(e)
  for (int k = kTerms - 1; k >= 0; --k) {
    sum = fma(sum, square, splat<V>(static_cast<T>(2.8853900817779268147 / (2 * k + 1))));
  }
  sum = fma(sum, u, __builtin_convertvector(power, V));
  return v <= Float::kMax ? sum : v;
}

WGK_INLINE vfloat square_root(vfloat v) {
#if WGK_VECTOR_BYTES == 64
  return (vfloat)_mm512_sqrt_ps((__m512)v);
#elif defined(WGK_F16C)
  return (vfloat)_mm256_sqrt_ps((__m256)v);
#else
  for (int k = 0; k < kFloats; ++k) {
    v[k] = std::sqrt(v[k]);
  }
  return v;
#endif
}

WGK_INLINE vdouble square_root(vdouble v) {
#if WGK_VECTOR_BYTES == 64
  return (vdouble)_mm512_sqrt_pd((__m512d)v);
#elif defined(WGK_F16C)
  return (vdouble)_mm256_sqrt_pd((__m256d)v);
#else
  for (int k = 0; k < kDoubles; ++k) {
    v[k] = std::sqrt(v[k]);
  }
  return v;
#endif
}

template <class V>
WGK_INLINE V reciprocal(V v) {
  return 1 / v;
}

// 2^t for t <= 0; exactly 0 below the smallest normal number; NaN stays NaN.
template <class V>
WGK_INLINE V exp2_of_negative(V t) {
  using T = std::remove_reference_t<decltype(t[0])>;
  using Float = FloatBits<T>;
  using Bits = vec<typename Float::Bits, sizeof(V) / sizeof(T)>;
  const V lowest = splat<V>(static_cast<T>(-Float::kBias));
  t = t < lowest ? lowest : t;
  const V rounded = t + Float::kRound;
  const V fraction = t - (rounded - Float::kRound);
  // The low bits of `rounded` hold the exponent; those of kRound are 0. At -kBias the power of two becomes 0.
  const Bits power = (load_bytes<Bits>(&rounded) << Float::kMantissa) +
                     (static_cast<typename Float::Bits>(Float::kBias) << Float::kMantissa);
  return exp2_fraction(fraction) * load_bytes<V>(&power);
}

}  // namespace WGK_ISA
}  // namespace wgk
