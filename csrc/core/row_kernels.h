// Loops over a row, or a block of one. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// Sums product(j), a vector of kDoubles terms from element j on, over the whole vectors of n elements, in a fixed order;
// tail(j, rest) gives the last terms, padded with zeros.
template <class Product, class Tail>
WGK_INLINE double sum_products(int64_t n, const Product& product, const Tail& tail) {
  constexpr int kUnroll = 4;
  vdouble sums[kUnroll] = {};
  int64_t j = 0;
  for (; j + kUnroll * kDoubles <= n; j += kUnroll * kDoubles) {
    for (int k = 0; k < kUnroll; ++k) {
      sums[k] += product(j + k * kDoubles);
    }
  }
  for (; j + kDoubles <= n; j += kDoubles) {
    sums[0] += product(j);
  }
  if (j < n) {
    sums[1] += tail(j, n - j);
  }
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class T>
WGK_INLINE vdouble load_tail(const T* p, int64_t rest) {
  T tail[kDoubles] = {};
  std::memcpy(tail, p, rest * sizeof(T));
  return load_doubles(tail);
}

// sum_j a[j] * b[j] in double.
template <class T>
double dot(const T* a, const T* b, int64_t n) {
  return sum_products(
      n, [=](int64_t j) __attribute__((always_inline)) { return load_doubles(a + j) * load_doubles(b + j); },
      [=](int64_t j, int64_t rest) { return load_tail(a + j, rest) * load_tail(b + j, rest); });
}

// sum_j a[j]^2 in double: dot(a, a), but each element is loaded and widened once.
template <class T>
double sum_of_squares(const T* a, int64_t n) {
  const auto square = [](vdouble v) __attribute__((always_inline)) { return v * v; };
  return sum_products(
      n, [=](int64_t j) __attribute__((always_inline)) { return square(load_doubles(a + j)); },
      [=](int64_t j, int64_t rest) { return square(load_tail(a + j, rest)); });
}

// combine in double, for factors that float cannot hold: the 1 / norm of tiny gradients, whose products are of ordinary
// size again. Rare, hence not fast.
template <class T, bool has_u>
void combine_wide(double a, const T* u, double b, const T* x, T* out, int64_t n) {
  for (int64_t j = 0; j < n; j += kDoubles) {
    const int64_t rest = std::min<int64_t>(kDoubles, n - j);
    vdouble sum = b * load_tail(x + j, rest);
    if constexpr (has_u) {
      sum = a * load_tail(u + j, rest) + sum;
    }
    Vector<T> narrow = {};
    for (int k = 0; k < kDoubles; ++k) {
      narrow[k] = static_cast<Compute<T>>(sum[k]);
    }
    T out_tail[kLanes<T>];
    store(out_tail, narrow);
    std::memcpy(out + j, out_tail, rest * sizeof(T));
  }
}

// out = a * u + b * x; without u, b * x.
template <class T, bool has_u>
void combine(double a, const T* u, double b, const T* x, T* out, int64_t n, bool streaming) {
  constexpr int kStep = kLanes<T>;
  if constexpr (!std::is_same_v<T, double>) {
    if (a > FLT_MAX || a < -FLT_MAX || b > FLT_MAX || b < -FLT_MAX) {
      return combine_wide<T, has_u>(a, u, b, x, out, n);
    }
  }
  const Vector<T> va = splat<Vector<T>>(static_cast<Compute<T>>(a)), vb = splat<Vector<T>>(static_cast<Compute<T>>(b));
  const auto value = [&](const T* u_from, const T* x_from, int64_t at) __attribute__((always_inline)) {
    if constexpr (has_u) {
      return va * load(u_from + at) + vb * load(x_from + at);
    } else {
      return vb * load(x_from + at);  // u is null, and no arithmetic may be done on it
    }
  };
  int64_t j = 0;
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    if (streaming) {
      for (; j + kStep <= n; j += kStep) {
        store_streaming(out + j, value(u, x, j));
      }
      finish_streaming();
    }
  }
  for (; j + kStep <= n; j += kStep) {
    store(out + j, value(u, x, j));
  }
  if (j < n) {
    T u_tail[kStep] = {}, x_tail[kStep] = {}, out_tail[kStep];
    if constexpr (has_u) {
      std::memcpy(u_tail, u + j, (n - j) * sizeof(T));
    }
    std::memcpy(x_tail, x + j, (n - j) * sizeof(T));
    store(out_tail, value(u_tail, x_tail, 0));
    std::memcpy(out + j, out_tail, (n - j) * sizeof(T));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
