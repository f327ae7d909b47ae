// Leaky rectifiers over stretches of memory. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

template <class T, bool clamped>
struct Rectifier {
  using V = Vector<T>;
  V gain, low, bound;

  WGK_INLINE explicit Rectifier(const BiasLeakyRelu& of)
      : gain(splat<V>(static_cast<Compute<T>>(of.gain))),
        low(splat<V>(static_cast<Compute<T>>(of.gain * of.negative_slope))),
        bound(splat<V>(static_cast<Compute<T>>(of.clamp))) {}

  WGK_INLINE V rectified(V z) const {
    const V y = z * (z > V{} ? gain : low);
    if constexpr (clamped) {  // a NaN stays what it is
      const V at_least = y < -bound ? -bound : y;
      return at_least > bound ? bound : at_least;
    } else {
      return y;
    }
  }

  // t * dy/dz
  WGK_INLINE V scaled(V t, V y) const {
    const V out = t * (y > V{} ? gain : low);
    if constexpr (clamped) {
      return ((y < bound) & (y > -bound)) ? out : V{};
    } else {
      return out;
    }
  }
};

// Where a loop takes its vectors from: memory, or a number that is the same for all.
template <class T>
struct Loaded {
  const T* p;
  WGK_INLINE auto at(int64_t j) const { return load(p + j); }
  WGK_INLINE auto tail(int64_t j, int64_t rest) const {
    T padded[kLanes<T>] = {};
    std::memcpy(padded, p + j, rest * sizeof(T));
    return load(padded);
  }
};

template <class V>
struct Same {
  V value;
  WGK_INLINE V at(int64_t) const { return value; }
  WGK_INLINE V tail(int64_t, int64_t) const { return value; }
};

template <class T>
WGK_INLINE void store_tail(T* p, Vector<T> v, int64_t rest) {
  T stored[kLanes<T>];
  store(stored, v);
  std::memcpy(p, stored, rest * sizeof(T));
}

template <class T>
WGK_INLINE void store_as(T* p, Vector<T> v, bool streaming) {
  if constexpr (sizeof(T) == sizeof(Compute<T>)) {
    if (streaming) {
      return store_streaming(p, v);
    }
  }
  store(p, v);
}

// out = f(from...) of n elements.
template <class T, class F, class... From>
WGK_INLINE void map(T* out, int64_t n, bool streaming, const F& f, const From&... from) {
  int64_t j = 0;
  for (; j + kLanes<T> <= n; j += kLanes<T>) {
    store_as(out + j, f(from.at(j)...), streaming);
  }
  if (j < n) {
    store_tail(out + j, f(from.tail(j, n - j)...), n - j);
  }
}

// Without y the pass forward, of a = x; with it (a + add) * dy/dz. `add`: one number, or one for each of n elements.
template <class T, bool clamped, class Add>
WGK_INLINE void rectify(const BiasLeakyRelu& of, const T* a, const T* y, const Add& add, T* out, int64_t n,
                        bool streaming) {
  using V = Vector<T>;
  const Rectifier<T, clamped> by(of);
  const Loaded<T> from{a};
  if (y == nullptr) {
    map(out, n, streaming, [&](V x, V b) __attribute__((always_inline)) { return by.rectified(x + b); }, from, add);
  } else {
    map(out, n, streaming, [&](V t, V b, V y_at) __attribute__((always_inline)) { return by.scaled(t + b, y_at); },
        from, add, Loaded<T>{y});
  }
}

template <class T, bool clamped>
void rectify_row(const BiasLeakyRelu& of, const T* a, const T* y, Compute<T> add, T* out, int64_t n, bool streaming) {
  rectify<T, clamped>(of, a, y, Same<Vector<T>>{splat<Vector<T>>(add)}, out, n, streaming);
}

template <class T, bool clamped>
void rectify_columns(const BiasLeakyRelu& of, const T* a, const T* y, const Compute<T>* add, T* out, int64_t n,
                     bool streaming) {
  rectify<T, clamped>(of, a, y, Loaded<Compute<T>>{add}, out, n, streaming);
}

// grad_x = grad_y * dy/dz of n elements; returns their sum.
template <class T, bool clamped>
double scale_and_sum_row(const BiasLeakyRelu& of, const T* grad_y, const T* y, T* grad_x, int64_t n, bool streaming) {
  using V = Vector<T>;
  const Rectifier<T, clamped> by(of);
  const Loaded<T> g{grad_y}, of_y{y};
  vdouble sums[2][2] = {};
  int64_t j = 0;
  const auto step = [&](vdouble(&to)[2]) __attribute__((always_inline)) {
    const V v = by.scaled(g.at(j), of_y.at(j));
    store_as(grad_x + j, v, streaming);
    widen_to(to, v);
    j += kLanes<T>;
  };
  while (j + 2 * kLanes<T> <= n) {
    step(sums[0]);
    step(sums[1]);
  }
  if (j + kLanes<T> <= n) {
    step(sums[0]);
  }
  if (j < n) {
    const V v = by.scaled(g.tail(j, n - j), of_y.tail(j, n - j));
    store_tail(grad_x + j, v, n - j);
    widen_to(sums[1], v);
  }
  return sum_lanes((sums[0][0] + sums[1][0]) + (sums[0][1] + sums[1][1]));
}

// The same of `rows` rows, `stride` apart, of n elements; adds to sums, [n] and the rest of a vector.
template <class T, bool clamped, int rows>
WGK_INLINE void scale_and_sum_rows(const Rectifier<T, clamped>& by, const T* grad_y, const T* y, T* grad_x,
                                   int64_t stride, int64_t n, double* sums, bool streaming) {
  using V = Vector<T>;
  constexpr int kParts = kLanes<T> / kDoubles;
  const auto step = [&](int64_t j, const auto& rectify_at) __attribute__((always_inline)) {
    vdouble parts[2] = {};
    for (int k = 0; k < kParts; ++k) {
      parts[k] = load(sums + j + k * kDoubles);
    }
    for (int row = 0; row < rows; ++row) {
      const V v = rectify_at(row * stride + j);
      widen_to(parts, v);
    }
    for (int k = 0; k < kParts; ++k) {
      store(sums + j + k * kDoubles, parts[k]);
    }
  };
  int64_t j = 0;
  for (; j + kLanes<T> <= n; j += kLanes<T>) {
    step(j, [&](int64_t at) __attribute__((always_inline)) {
      const V v = by.scaled(load(grad_y + at), load(y + at));
      store_as(grad_x + at, v, streaming);
      return v;
    });
  }
  if (j < n) {
    step(j, [&](int64_t at) __attribute__((always_inline)) {
      const V v = by.scaled(Loaded<T>{grad_y}.tail(at, n - j), Loaded<T>{y}.tail(at, n - j));
      store_tail(grad_x + at, v, n - j);
      return v;
    });
  }
}

template <class T, bool clamped>
void scale_and_sum_columns(const BiasLeakyRelu& of, const T* grad_y, const T* y, T* grad_x, int64_t rows,
                           int64_t stride, int64_t n, double* sums, bool streaming) {
  constexpr int kRows = 4;  // for one load and store of the sums
  const Rectifier<T, clamped> by(of);
  int64_t at = 0;
  for (; rows >= kRows; rows -= kRows, at += kRows * stride) {
    scale_and_sum_rows<T, clamped, kRows>(by, grad_y + at, y + at, grad_x + at, stride, n, sums, streaming);
  }
  for (; rows > 0; --rows, at += stride) {
    scale_and_sum_rows<T, clamped, 1>(by, grad_y + at, y + at, grad_x + at, stride, n, sums, streaming);
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
