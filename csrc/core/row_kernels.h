// Loops over a row, or a block of one. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// Sums of products in double: the terms are added to the lanes of several sums in a fixed order.
constexpr int kSums = 4;
constexpr int64_t kSumStep = kSums * kDoubles;

// Adds product(j), a vector of kDoubles terms from element j on, for the elements [begin, end), whole steps of them.
template <class Product>
WGK_INLINE void add_products(vdouble* sums, int64_t begin, int64_t end, const Product& product) {
  for (int64_t j = begin; j < end; j += kSumStep) {
    for (int k = 0; k < kSums; ++k) {
      sums[k] += product(j + k * kDoubles);
    }
  }
}

// Adds the terms of [begin, n), less than a step, and all sums; tail(j, rest) gives the last terms, padded with zeros.
template <class Product, class Tail>
WGK_INLINE double finish_products(vdouble* sums, int64_t begin, int64_t n, const Product& product, const Tail& tail) {
  int64_t j = begin;
  for (; j + kDoubles <= n; j += kDoubles) {
    sums[0] += product(j);
  }
  if (j < n) {
    sums[1] += tail(j, n - j);
  }
  return sum_lanes((sums[0] + sums[1]) + (sums[2] + sums[3]));
}

template <class Product, class Tail>
WGK_INLINE double sum_products(int64_t n, const Product& product, const Tail& tail) {
  vdouble sums[kSums] = {};
  const int64_t steps = n / kSumStep * kSumStep;
  add_products(sums, 0, steps, product);
  return finish_products(sums, steps, n, product, tail);
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

// The terms of sum_j a[j]^2: those of dot(a, a), but each element is loaded and widened once.
template <class T>
struct Squares {
  const T* a;
  WGK_INLINE static vdouble square(vdouble v) { return v * v; }
  WGK_INLINE vdouble operator()(int64_t j) const { return square(load_doubles(a + j)); }
  WGK_INLINE vdouble operator()(int64_t j, int64_t rest) const { return square(load_tail(a + j, rest)); }
};

template <class T>
double sum_of_squares(const T* a, int64_t n) {
  return sum_products(n, Squares<T>{a}, Squares<T>{a});
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

// out = a * u + b * x; without u, b * x. Streaming stores are not finished.
template <class T, bool has_u>
WGK_INLINE void combine_unfinished(double a, const T* u, double b, const T* x, T* out, int64_t n, bool streaming) {
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

template <class T, bool has_u>
void combine(double a, const T* u, double b, const T* x, T* out, int64_t n, bool streaming) {
  combine_unfinished<T, has_u>(a, u, b, x, out, n, streaming);
  if (streaming) {
    finish_streaming();
  }
}

// out = b * x, and sum_of_squares(next), in turns: the writes of the one are under way while the other is read.
template <class T>
double scale_and_sum_squares(double b, const T* x, T* out, const T* next, int64_t n, bool streaming) {
  constexpr int64_t kTurn = 16 * kSumStep;
  const Squares<T> squares{next};
  const int64_t steps = n / kSumStep * kSumStep;
  vdouble sums[kSums] = {};
  for (int64_t j = 0; j < n; j += kTurn) {
    add_products(sums, j, std::min(j + kTurn, steps), squares);
    combine_unfinished<T, false>(0, nullptr, b, x + j, out + j, std::min(kTurn, n - j), streaming);
  }
  if (streaming) {
    finish_streaming();
  }
  return finish_products(sums, steps, n, squares, squares);
}

}  // namespace WGK_ISA
}  // namespace wgk
