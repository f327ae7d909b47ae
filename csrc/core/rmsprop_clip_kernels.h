// The step over a range of elements. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

WGK_INLINE vfloat square_root(vfloat x) {
#if WGK_VECTOR_BYTES == 64
  return (vfloat)_mm512_sqrt_ps((__m512)x);
#elif defined(WGK_F16C)
  return (vfloat)_mm256_sqrt_ps((__m256)x);
#else
  for (int i = 0; i < kFloats; ++i) {
    x[i] = std::sqrt(x[i]);
  }
  return x;
#endif
}

WGK_INLINE vdouble square_root(vdouble x) {
#if WGK_VECTOR_BYTES == 64
  return (vdouble)_mm512_sqrt_pd((__m512d)x);
#elif defined(WGK_F16C)
  return (vdouble)_mm256_sqrt_pd((__m256d)x);
#else
  for (int i = 0; i < kDoubles; ++i) {
    x[i] = std::sqrt(x[i]);
  }
  return x;
#endif
}

// A bound as T stores it.
template <class T>
WGK_INLINE Vector<T> rounded(double bound) {
  if constexpr (std::is_same_v<T, float16>) {
    return splat<vfloat>(half_to_float(float_to_half(static_cast<float>(bound))));
  } else {
    T lanes[kLanes<T>];
    store(lanes, splat<Vector<T>>(static_cast<Compute<T>>(bound)));
    return load(lanes);
  }
}

template <class T>
struct Update {
  using V = Vector<T>;
  V minus_lr, alpha, rest, eps, weight_decay, momentum, grad_factor, low, high;
  bool decays, mostly_new;  // mostly_new: averages are computed from their new end, as torch.lerp does

  explicit Update(const RmspropStep& step)
      : minus_lr(number(-step.lr)), alpha(number(step.alpha)), rest(number(1 - step.alpha)), eps(number(step.eps)),
        weight_decay(number(step.weight_decay)), momentum(number(step.momentum)),
        grad_factor(number(step.grad_factor)), low(rounded<T>(step.low)), high(rounded<T>(step.high)),
        decays(step.weight_decay != 0), mostly_new(1 - step.alpha >= 0.5) {}

  static V number(double x) { return splat<V>(static_cast<Compute<T>>(x)); }

  // A NaN, for which both comparisons fail, stays as it is.
  WGK_INLINE V clip(V w) const {
    w = w < low ? low : w;
    return w > high ? high : w;
  }

  // The new weight. The roundings are those of torch.optim.RMSprop, whose kernels fuse the same products and sums.
  template <bool centered, bool with_momentum>
  WGK_INLINE V weight(V w, V g, V& v, V& b, V& a) const {
    g = g * grad_factor;
    g = decays ? fma(w, weight_decay, g) : g;
    v = fma(rest * g, g, v * alpha);
    V spread = v;
    if constexpr (centered) {
      const V way = g - a;
      a = mostly_new ? g - way * alpha : fma(rest, way, a);
      spread = fma(-a, a, v);
      spread = spread < V{} ? V{} : spread;  // below zero by rounding alone
    }
    const V scale = square_root(spread) + eps;
    if constexpr (with_momentum) {
      b = b * momentum + g / scale;
      return clip(fma(b, minus_lr, w));
    } else {
      return clip(w + minus_lr * g / scale);
    }
  }
};

// What is asked about clipped weights, as they are stored.
template <class T>
struct Seen {
  using V = Vector<T>;
  using Counts = vec<std::conditional_t<sizeof(Compute<T>) == 8, int64_t, int32_t>, kLanes<T>>;
  V largest = {};
  Counts at_bound = {};

  // The first `lanes` of the vector.
  WGK_INLINE void look(V w, const Update<T>& update, int lanes) {
    Counts at = (w <= update.low) | (w >= update.high);
    V magnitude = w < V{} ? -w : w;
    for (int i = lanes; i < kLanes<T>; ++i) {
      at[i] = 0;
      magnitude[i] = 0;
    }
    at_bound -= at;
    // A NaN takes the place of any number, and nothing takes its place.
    largest = (magnitude > largest) | (magnitude != magnitude) ? magnitude : largest;
  }

  void add_to(ClipCount& count) const {
    for (int i = 0; i < kLanes<T>; ++i) {
      count.at_bound += at_bound[i];
      count.largest = largest[i] > count.largest || largest[i] != largest[i] ? largest[i] : count.largest;
    }
  }
};

// The same element of several arrays.
template <class T, int count>
struct Side {
  T* p[count];
};

// Calls each(side, lanes) along the arrays: on whole vectors from element begin on, then on a copy of the last
// elements, of which the arrays but for the last, `read`, are brought back.
template <class T, int count, int read, class Each>
WGK_INLINE void walk(const Side<T, count>& arrays, int64_t begin, int64_t end, const Each& each) {
  constexpr int kStep = kLanes<T>;
  Side<T, count> here;
  int64_t j = begin;
  for (; j + kStep <= end; j += kStep) {
    for (int k = 0; k < count; ++k) {
      here.p[k] = arrays.p[k] + j;
    }
    each(here, kStep);
  }
  if (j < end) {
    const int lanes = static_cast<int>(end - j);
    T tails[count][kStep] = {};
    for (int k = 0; k < count; ++k) {
      std::memcpy(tails[k], arrays.p[k] + j, lanes * sizeof(T));
      here.p[k] = tails[k];
    }
    each(here, lanes);
    for (int k = 0; k < count - read; ++k) {
      std::memcpy(arrays.p[k] + j, tails[k], lanes * sizeof(T));
    }
  }
}

template <class T, bool centered, bool with_momentum>
void step_range(const RmspropTensor& tensor, int64_t begin, int64_t end, const RmspropStep& step, ClipCount* count) {
  constexpr int kB = 2, kA = kB + with_momentum, kG = kA + centered;
  const Update<T> update(step);
  Seen<T> seen;
  Side<T, kG + 1> arrays;
  arrays.p[0] = static_cast<T*>(tensor.param);
  arrays.p[1] = static_cast<T*>(tensor.square_avg);
  arrays.p[kA] = static_cast<T*>(tensor.grad_avg);
  arrays.p[kB] = static_cast<T*>(with_momentum ? tensor.momentum_buffer : tensor.grad_avg);
  arrays.p[kG] = static_cast<T*>(const_cast<void*>(tensor.grad));
  walk<T, kG + 1, 1>(arrays, begin, end, [&](const Side<T, kG + 1>& at, int lanes) __attribute__((always_inline)) {
    Vector<T> v = load(at.p[1]), b = load(at.p[kB]), a = load(at.p[kA]);
    const Vector<T> w = update.template weight<centered, with_momentum>(load(at.p[0]), load(at.p[kG]), v, b, a);
    store(at.p[0], w);
    store(at.p[1], v);
    if constexpr (with_momentum) {
      store(at.p[kB], b);
    }
    if constexpr (centered) {
      store(at.p[kA], a);
    }
    if (count != nullptr) {
      seen.look(load(at.p[0]), update, lanes);
    }
  });
  if (count != nullptr) {
    seen.add_to(*count);
  }
}

template <class T>
void clip_range(const RmspropTensor& tensor, int64_t begin, int64_t end, const RmspropStep& step, ClipCount* count) {
  const Update<T> update(step);
  Seen<T> seen;
  walk<T, 1, 0>({{static_cast<T*>(tensor.param)}}, begin, end,
                [&](const Side<T, 1>& at, int lanes) __attribute__((always_inline)) {
                  store(at.p[0], update.clip(load(at.p[0])));
                  if (count != nullptr) {
                    seen.look(load(at.p[0]), update, lanes);
                  }
                });
  if (count != nullptr) {
    seen.add_to(*count);
  }
}

// The elements [begin, end) of a tensor.
template <class T>
void rmsprop_range(const RmspropTensor& tensor, int64_t begin, int64_t end, const RmspropStep& step,
                   ClipCount* count) {
  if (tensor.grad == nullptr) {
    return clip_range<T>(tensor, begin, end, step, count);
  }
  const bool centered = tensor.grad_avg != nullptr, with_momentum = tensor.momentum_buffer != nullptr;
  const auto range = centered ? (with_momentum ? step_range<T, true, true> : step_range<T, true, false>)
                              : (with_momentum ? step_range<T, false, true> : step_range<T, false, false>);
  range(tensor, begin, end, step, count);
}

}  // namespace WGK_ISA
}  // namespace wgk
