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
  static constexpr float kRound = 12582912.0f;  // 1.5 * 2^23
};
template <>
struct FloatBits<double> {
  using Bits = int64_t;
  static constexpr int kMantissa = 52, kBias = 1023;
  static constexpr double kRound = 6755399441055744.0;  // 1.5 * 2^52
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
