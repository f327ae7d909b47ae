// Elements of every storage type on the device: widening, narrowing, and 16 bytes at a time.
#pragma once

#include <type_traits>

#include "launch.h"

#define WGK_DEVICE __device__ __forceinline__

#ifdef WGK_SIMT
#define WGK_MAY_ALIAS __attribute__((may_alias))
#else
#define WGK_MAY_ALIAS  // nvcc makes no use of types to tell memory apart
#endif

namespace wgk {

// The type that elements of T are computed in.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

WGK_DEVICE double widen(double x) { return x; }
WGK_DEVICE float widen(float x) { return x; }
WGK_DEVICE float widen(bfloat16 x) { return __uint_as_float(static_cast<unsigned>(x.bits) << 16); }
WGK_DEVICE float widen(float16 x) {
  __half_raw raw;
  raw.x = x.bits;
  return __half2float(__half(raw));
}

// Rounds to the nearest, ties to even.
template <class T>
WGK_DEVICE T narrow(Wide<T> x) {
  if constexpr (std::is_same_v<T, bfloat16>) {
    return {static_cast<__nv_bfloat16_raw>(__float2bfloat16_rn(x)).x};
  } else if constexpr (std::is_same_v<T, float16>) {
    return {static_cast<__half_raw>(__float2half_rn(x)).x};
  } else {
    return x;
  }
}

// Products and sums that the compiler may not fuse: the same roundings as on the CPU.
WGK_DEVICE float multiply(float a, float b) { return __fmul_rn(a, b); }
WGK_DEVICE double multiply(double a, double b) { return __dmul_rn(a, b); }
WGK_DEVICE float add(float a, float b) { return __fadd_rn(a, b); }
WGK_DEVICE double add(double a, double b) { return __dadd_rn(a, b); }

constexpr int kPackBytes = 16;
template <class T>
constexpr int kPackOf = kPackBytes / static_cast<int>(sizeof(T));

// V elements that are loaded and stored at once: 16 bytes of them, kept as words, or one.
template <class T, int V>
struct __align__(kPackBytes) WGK_MAY_ALIAS Pack {
  static_assert(V == kPackOf<T>);
  unsigned words[4];

  WGK_DEVICE T get(int e) const {
    if constexpr (sizeof(T) == 8) {
      return __hiloint2double(static_cast<int>(words[2 * e + 1]), static_cast<int>(words[2 * e]));
    } else if constexpr (sizeof(T) == 4) {
      return __uint_as_float(words[e]);
    } else {
      return {static_cast<uint16_t>(words[e / 2] >> (e % 2 * 16))};
    }
  }

  // From the first element to the last.
  WGK_DEVICE void set(int e, T x) {
    if constexpr (sizeof(T) == 8) {
      words[2 * e] = static_cast<unsigned>(__double2loint(x));
      words[2 * e + 1] = static_cast<unsigned>(__double2hiint(x));
    } else if constexpr (sizeof(T) == 4) {
      words[e] = __float_as_uint(x);
    } else {
      words[e / 2] = e % 2 == 0 ? x.bits : words[e / 2] | static_cast<unsigned>(x.bits) << 16;
    }
  }
};

template <class T>
struct Pack<T, 1> {
  T one;
  WGK_DEVICE T get(int) const { return one; }
  WGK_DEVICE void set(int, T x) { one = x; }
};

template <int V, class T>
WGK_DEVICE Pack<T, V> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, V>*>(p);
}

// By the name of the default policy: a plain store of 16 bytes, where some lanes take another way, becomes four of 4.
template <int V, class T>
WGK_DEVICE void store_pack(T* p, const Pack<T, V>& pack) {
  if constexpr (V == 1) {
    *p = pack.one;
  } else {
    __stwb(reinterpret_cast<uint4*>(p), make_uint4(pack.words[0], pack.words[1], pack.words[2], pack.words[3]));
  }
}

// How many elements past a multiple of 16 bytes p is.
template <class T>
WGK_HOST_DEVICE int pack_offset(const T* p) {
  return static_cast<int>(reinterpret_cast<uintptr_t>(p) % kPackBytes / sizeof(T));
}

}  // namespace wgk
