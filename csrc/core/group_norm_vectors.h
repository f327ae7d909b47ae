// Vectors of a row, the last of which may be shorter, and sums of them in double. Compiled once per instruction set.
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// A whole vector from element j on.
template <class T>
struct Whole {
  int64_t j;
  template <class U>
  WGK_INLINE Vector<T> load(const U* p) const {
    return WGK_ISA::load(p + j);
  }
  template <class U>
  WGK_INLINE Vector<T> load(const U* p, Vector<T>) const {
    return WGK_ISA::load(p + j);
  }
  template <class U>
  WGK_INLINE void store(U* p, Vector<T> v) const {
    WGK_ISA::store(p + j, v);
  }
  template <class U>
  WGK_INLINE void store(U* p, Vector<T> v, bool streaming) const {
    if constexpr (sizeof(U) == sizeof(Compute<T>)) {
      if (streaming) {
        return store_streaming(p + j, v);
      }
    }
    WGK_ISA::store(p + j, v);
  }
};

// The last `rest` elements from j on, and something else in the other lanes.
template <class T>
struct Rest {
  int64_t j, rest;
  template <class U>
  WGK_INLINE Vector<T> load(const U* p) const {
    U part[kLanes<T>] = {};
    std::memcpy(part, p + j, rest * sizeof(U));
    return WGK_ISA::load(part);
  }
  template <class U>
  WGK_INLINE Vector<T> load(const U* p, Vector<T> other) const {
    Vector<T> v = load(p);
    for (int64_t k = rest; k < kLanes<T>; ++k) {
      v[k] = other[k];
    }
    return v;
  }
  template <class U>
  WGK_INLINE void store(U* p, Vector<T> v) const {
    U part[kLanes<T>];
    WGK_ISA::store(part, v);
    std::memcpy(p + j, part, rest * sizeof(U));
  }
  template <class U>
  WGK_INLINE void store(U* p, Vector<T> v, bool) const {
    store(p, v);
  }
};

constexpr int kVectorsInFloat = 16;  // are added up in the computing type before they are widened

// Calls f(Whole or Rest) for the vectors of elements [begin, end).
template <class T, class F>
WGK_INLINE void for_vectors(int64_t begin, int64_t end, const F& f) {
  int64_t j = begin;
  for (; j + kLanes<T> <= end; j += kLanes<T>) {
    f(Whole<T>{j});
  }
  if (j < end) {
    f(Rest<T>{j, end - j});
  }
}

// Sums of `count` terms for each of n elements: f(at, parts) adds the terms of one vector to parts.
template <class T, int count>
struct VectorSums {
  vdouble totals[count][2] = {};

  template <class F>
  WGK_INLINE void add(int64_t n, const F& f) {
    constexpr int64_t kStep = kVectorsInFloat * kLanes<T>;
    for (int64_t begin = 0; begin < n; begin += kStep) {
      Vector<T> parts[count] = {};
      for_vectors<T>(begin, std::min(begin + kStep, n),
                     [&](auto at) __attribute__((always_inline)) { f(at, parts); });
      for (int k = 0; k < count; ++k) {
        widen_to(totals[k], parts[k]);
      }
    }
  }
  double total(int k) const { return sum_lanes(totals[k][0] + totals[k][1]); }
};

}  // namespace WGK_ISA
}  // namespace wgk
