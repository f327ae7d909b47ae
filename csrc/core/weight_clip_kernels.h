// Clips runs of equally spaced elements. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// Written so that a NaN, for which both comparisons fail, stays as it is.
template <class T>
void clip_run(T* w, int64_t count, int64_t stride, T low, T high) {
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      const T at_least = w[i] < low ? low : w[i];
      w[i] = at_least > high ? high : at_least;
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      const T at_least = w[i * stride] < low ? low : w[i * stride];
      w[i * stride] = at_least > high ? high : at_least;
    }
  }
}

// Half-width floats are clipped as integers: their bits, with the magnitude of negative numbers inverted, are ordered
// as the numbers are. `infinity` is the pattern above whose magnitude lie the NaNs.
WGK_INLINE int16_t ordered(int16_t bits) {
  return bits == INT16_MIN ? int16_t{0} : static_cast<int16_t>(bits ^ ((bits >> 15) & 0x7fff));
}

inline void clip_half_run(int16_t* w, int64_t count, int64_t stride, int16_t low, int16_t high, int16_t infinity) {
  const int16_t low_key = ordered(low), high_key = ordered(high);
  const auto clip_one = [=](int16_t bits) __attribute__((always_inline)) {
    const int16_t key = ordered(bits);
    const int16_t clipped = key < low_key ? low : key > high_key ? high : bits;
    return (bits & 0x7fff) > infinity ? bits : clipped;
  };
  if (stride == 1) {
    for (int64_t i = 0; i < count; ++i) {
      w[i] = clip_one(w[i]);
    }
  } else {
    for (int64_t i = 0; i < count; ++i) {
      w[i * stride] = clip_one(w[i * stride]);
    }
  }
}

// count elements, `stride` apart, of the storage type that dtype names.
void clip_elements(DType dtype, void* w, int64_t count, int64_t stride, double low, double high) {
  const auto half_bits = [](auto type, double bound) {
    decltype(type) bits[kFloats];
    store(bits, splat<vfloat>(static_cast<float>(bound)));
    return static_cast<int16_t>(bits[0].bits);
  };
  switch (dtype) {
    case DType::float64:
      return clip_run(static_cast<double*>(w), count, stride, low, high);
    case DType::float32:
      return clip_run(static_cast<float*>(w), count, stride, static_cast<float>(low), static_cast<float>(high));
    case DType::bfloat16:
      return clip_half_run(static_cast<int16_t*>(w), count, stride, half_bits(bfloat16{}, low),
                           half_bits(bfloat16{}, high), 0x7f80);
    case DType::float16:
      return clip_half_run(static_cast<int16_t*>(w), count, stride, half_bits(float16{}, low),
                           half_bits(float16{}, high), 0x7c00);
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
