// Loops over a row, or a block of one. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// sum_j a[j] * b[j] in double, with a fixed order of additions.
template <class T>
double dot(const T* a, const T* b, int64_t n) {
  constexpr int kUnroll = 4;
  vdouble sums[kUnroll] = {};
  int64_t j = 0;
  for (; j + kUnroll * kDoubles <= n; j += kUnroll * kDoubles) {
    for (int k = 0; k < kUnroll; ++k) {
      sums[k] += load_doubles(a + j + k * kDoubles) * load_doubles(b + j + k * kDoubles);
    }
  }
  for (; j < n; j += kDoubles) {
    T a_tail[kDoubles] = {}, b_tail[kDoubles] = {};
    const int64_t rest = std::min<int64_t>(kDoubles, n - j);
    std::memcpy(a_tail, a + j, rest * sizeof(T));
    std::memcpy(b_tail, b + j, rest * sizeof(T));
    sums[0] += load_doubles(a_tail) * load_doubles(b_tail);
  }
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

// out = a * u + b * x; without u, b * x.
template <class T, bool has_u>
void combine(double a, const T* u, double b, const T* x, T* out, int64_t n, bool streaming) {
  constexpr int kStep = kLanes<T>;
  const Vector<T> va = Vector<T>{} + static_cast<Compute<T>>(a), vb = Vector<T>{} + static_cast<Compute<T>>(b);
  const auto value = [&](const T* u_at, const T* x_at) __attribute__((always_inline)) {
    if constexpr (has_u) {
      return va * load(u_at) + vb * load(x_at);
    } else {
      return vb * load(x_at);
    }
  };
  int64_t j = 0;
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    if (streaming) {
      for (; j + kStep <= n; j += kStep) {
        store_streaming(out + j, value(u + j, x + j));
      }
      finish_streaming();
    }
  }
  for (; j + kStep <= n; j += kStep) {
    store(out + j, value(u + j, x + j));
  }
  if (j < n) {
    T u_tail[kStep] = {}, x_tail[kStep] = {}, out_tail[kStep];
    if constexpr (has_u) {
      std::memcpy(u_tail, u + j, (n - j) * sizeof(T));
    }
    std::memcpy(x_tail, x + j, (n - j) * sizeof(T));
    store(out_tail, value(u_tail, x_tail));
    std::memcpy(out + j, out_tail, (n - j) * sizeof(T));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
