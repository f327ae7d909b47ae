// Vectors of one instruction set: loads and stores of every element type, widened to the type it is computed in.
// Included by a kernel file that for_each_isa.h compiles, hence once per instruction set and without a guard.

namespace wgk {
namespace WGK_ISA {

#define WGK_INLINE inline __attribute__((always_inline))

template <class T, int lanes>
struct VectorOf {
  typedef T type __attribute__((vector_size(sizeof(T) * lanes)));
};
template <class T, int lanes>
using vec = typename VectorOf<T, lanes>::type;

inline constexpr int kDoubles = WGK_VECTOR_BYTES / 8;
inline constexpr int kFloats = WGK_VECTOR_BYTES / 4;

// The type that elements of T are computed in, and how many of them a vector holds.
template <class T>
using Compute = std::conditional_t<std::is_same_v<T, double>, double, float>;
template <class T>
inline constexpr int kLanes = WGK_VECTOR_BYTES / static_cast<int>(sizeof(Compute<T>));

using vdouble = vec<double, kDoubles>;
using vfloat = vec<float, kFloats>;
template <class T>
using Vector = std::conditional_t<std::is_same_v<T, double>, vdouble, vfloat>;

template <class V>
WGK_INLINE V load_bytes(const void* p) {
  V v;
  std::memcpy(&v, p, sizeof(V));
  return v;
}

// x in every lane. Not V{} + x, which loses the sign of -0.
template <class V, class S>
WGK_INLINE V splat(S x) {
  return x - V{};
}

// a * b + c, rounded once where the instruction set can.
WGK_INLINE vfloat fma(vfloat a, vfloat b, vfloat c) {
#if WGK_VECTOR_BYTES == 64
  return (vfloat)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(WGK_F16C)
  return (vfloat)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

WGK_INLINE vdouble fma(vdouble a, vdouble b, vdouble c) {
#if WGK_VECTOR_BYTES == 64
  return (vdouble)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif defined(WGK_F16C)
  return (vdouble)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
  return a * b + c;
#endif
}

// ---- half-width floats, `lanes` at a time

WGK_INLINE float half_to_float(uint16_t h) {
  const uint32_t sign = (h & 0x8000u) << 16, magnitude = h & 0x7fffu;
  uint32_t bits = magnitude << 13;
  if (magnitude >= 0x7c00u) {
    bits += 112u << 23 << 1;  // infinity and NaN: the exponent becomes all ones
  } else {
    bits += 112u << 23;
    if (magnitude < 0x0400u) {  // subnormal or zero: let a float subtraction normalise it
      float normal;
      bits += 1u << 23;
      std::memcpy(&normal, &bits, 4);
      normal -= 6.103515625e-05f;  // 2^-14
      std::memcpy(&bits, &normal, 4);
    }
  }
  bits |= sign;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

WGK_INLINE uint16_t float_to_half(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) {
    return static_cast<uint16_t>(sign | 0x7e00u | ((bits >> 13) & 0x3ffu));
  }
  if (bits >= 0x477ff000u) {  // rounds to 65536 or more
    return static_cast<uint16_t>(sign | 0x7c00u);
  }
  if (bits < 0x38800000u) {  // subnormal: adding 0.5 lines the result up with the last bits, rounding to even
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    magnitude += 0.5f;
    std::memcpy(&bits, &magnitude, 4);
    return static_cast<uint16_t>(sign | (bits - 0x3f000000u));
  }
  bits += 0xc8000fffu + ((bits >> 13) & 1u);
  return static_cast<uint16_t>(sign | (bits >> 13));
}

template <int lanes>
WGK_INLINE vec<float, lanes> load_floats(const float* p) {
  return load_bytes<vec<float, lanes>>(p);
}

template <int lanes>
WGK_INLINE vec<float, lanes> load_floats(const bfloat16* p) {
  using Bits = vec<uint32_t, lanes>;
  const Bits bits = __builtin_convertvector(load_bytes<vec<uint16_t, lanes>>(p), Bits) << 16;
  return load_bytes<vec<float, lanes>>(&bits);
}

template <int lanes>
WGK_INLINE vec<float, lanes> load_floats(const float16* p) {
#if defined(WGK_F16C)
  if constexpr (lanes == 4) {
    return (vec<float, lanes>)_mm_cvtph_ps(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  } else if constexpr (lanes == 8) {
    return (vec<float, lanes>)_mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  }
#if WGK_VECTOR_BYTES == 64
  else {
    return (vec<float, lanes>)_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
  }
#endif
#else
  vec<float, lanes> v;
  for (int i = 0; i < lanes; ++i) {
    v[i] = half_to_float(p[i].bits);
  }
  return v;
#endif
}

// ---- vectors in the computing type

WGK_INLINE vdouble load(const double* p) { return load_bytes<vdouble>(p); }
WGK_INLINE vfloat load(const float* p) { return load_bytes<vfloat>(p); }
WGK_INLINE vfloat load(const bfloat16* p) { return load_floats<kFloats>(p); }
WGK_INLINE vfloat load(const float16* p) { return load_floats<kFloats>(p); }

WGK_INLINE void store(double* p, vdouble v) { std::memcpy(p, &v, sizeof(v)); }
WGK_INLINE void store(float* p, vfloat v) { std::memcpy(p, &v, sizeof(v)); }

WGK_INLINE void store(bfloat16* p, vfloat v) {
  using Bits = vec<uint32_t, kFloats>;
  using Halves = vec<uint16_t, kFloats>;
  const Bits bits = load_bytes<Bits>(&v);
  const Bits rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Bits quiet_nan = (bits >> 16) | 0x40u;
  const Halves out = __builtin_convertvector((bits & 0x7fffffffu) > 0x7f800000u ? quiet_nan : rounded, Halves);
  std::memcpy(p, &out, sizeof(out));
}

WGK_INLINE void store(float16* p, vfloat v) {
#if WGK_VECTOR_BYTES == 64
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(p),
                      _mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif defined(WGK_F16C)
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p),
                   _mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
  for (int i = 0; i < kFloats; ++i) {
    p[i].bits = float_to_half(v[i]);
  }
#endif
}

// Past the caches, for results that are not read again soon. p is aligned to the vector.
template <class V>
WGK_INLINE void store_streaming(void* p, V v) {
#if defined(__x86_64__)
#if WGK_VECTOR_BYTES == 64
  _mm512_stream_ps(static_cast<float*>(p), (__m512)v);
#elif defined(WGK_F16C)
  _mm256_stream_ps(static_cast<float*>(p), (__m256)v);
#else
  for (int i = 0; i < WGK_VECTOR_BYTES / 16; ++i) {
    _mm_stream_ps(static_cast<float*>(p) + 4 * i, load_bytes<__m128>(reinterpret_cast<const char*>(&v) + 16 * i));
  }
#endif
#else
  std::memcpy(p, &v, sizeof(v));
#endif
}

// Streaming stores are weakly ordered: before another thread may read them they need a fence.
WGK_INLINE void finish_streaming() {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// ---- widened to double, for sums

WGK_INLINE vdouble load_doubles(const double* p) { return load(p); }
// By intrinsics: gcc splits the conversion of a whole vector in halves.
WGK_INLINE vdouble widen(vec<float, kDoubles> v) {
#if WGK_VECTOR_BYTES == 64
  return (vdouble)_mm512_cvtps_pd((__m256)v);
#elif defined(WGK_F16C)
  return (vdouble)_mm256_cvtps_pd((__m128)v);
#else
  return __builtin_convertvector(v, vdouble);
#endif
}

template <class T>
WGK_INLINE vdouble load_doubles(const T* p) {
  return widen(load_floats<kDoubles>(p));
}

// Adds the lanes of a vector to two vectors of double.
WGK_INLINE void widen_to(vdouble (&sums)[2], vdouble v) { sums[0] += v; }
WGK_INLINE void widen_to(vdouble (&sums)[2], vfloat v) {
#if WGK_VECTOR_BYTES == 64
  sums[0] += widen((vec<float, 8>)_mm512_castps512_ps256((__m512)v));
  sums[1] += widen((vec<float, 8>)_mm512_extractf32x8_ps((__m512)v, 1));
#elif defined(WGK_F16C)
  sums[0] += widen((vec<float, 4>)_mm256_castps256_ps128((__m256)v));
  sums[1] += widen((vec<float, 4>)_mm256_extractf128_ps((__m256)v, 1));
#else
  float lanes[kFloats];
  store(lanes, v);
  sums[0] += load_doubles(lanes);
  sums[1] += load_doubles(lanes + kDoubles);
#endif
}

WGK_INLINE double sum_lanes(vdouble v) {
  double sum = 0;
  for (int i = 0; i < kDoubles; ++i) {
    sum += v[i];
  }
  return sum;
}
WGK_INLINE double sum_lanes(vfloat v) {
  vdouble wide[2] = {};
  widen_to(wide, v);
  return sum_lanes(wide[0] + wide[1]);
}

// Adds the lanes to as many doubles in memory.
WGK_INLINE void add_to(double* sums, vdouble v) { store(sums, load(sums) + v); }
WGK_INLINE void add_to(double* sums, vfloat v) {
  vdouble wide[2] = {load(sums), load(sums + kDoubles)};
  widen_to(wide, v);
  store(sums, wide[0]);
  store(sums + kDoubles, wide[1]);
}

}  // namespace WGK_ISA
}  // namespace wgk
