// The sweeps over one group of samples, and the sums over samples. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"

namespace wgk {
namespace WGK_ISA {

// The block of results that is kept in registers, of which there are 16, and 32 with AVX-512.
inline constexpr int kMlpRows = WGK_VECTOR_BYTES == 64 ? 8 : 6, kMlpVectors = 2;
inline constexpr int64_t kMlpBlock = 512;  // products of more terms than this are summed block by block

// sums[r][v] += sum_k a[r * row_step + k * step] * b[k * b_step + v * lanes], all in registers.
template <class T, int rows, int vectors>
WGK_INLINE void multiply_add(const T* a, int64_t row_step, int64_t step, const T* b, int64_t b_step, int64_t count,
                             Vector<T> (&sums)[rows][vectors]) {
  for (int64_t k = 0; k < count; ++k) {
    Vector<T> right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      right[v] = load(b + k * b_step + v * kLanes<T>);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const Vector<T> left = splat<Vector<T>>(a[r * row_step + k * step]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = fma(left, right[v], sums[r][v]);
      }
    }
  }
}

// out[i] = finish(i, element, sum_k w[i * row_step + k * step] * panel[k]) for `rows` rows from i on.
template <class T, int rows, int vectors, class Finish>
WGK_INLINE void multiply_rows(const T* w, int64_t row_step, int64_t step, int64_t i, int64_t count, const T* panel,
                              T* out, const Finish& finish) {
  constexpr int64_t kWidth = vectors * kLanes<T>;
  w += i * row_step;
  for (int64_t begin = 0; begin < count || begin == 0; begin += kMlpBlock) {
    const int64_t terms = std::min(kMlpBlock, count - begin);
    Vector<T> sums[rows][vectors] = {};
    multiply_add<T, rows, vectors>(w + begin * step, row_step, step, panel + begin * kWidth, kWidth, terms, sums);
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) {
        const int64_t at = (i + r) * kWidth + v * kLanes<T>;
        const Vector<T> sum = begin == 0 ? sums[r][v] : load(out + at) + sums[r][v];
        store(out + at, begin + terms == count ? finish(i + r, at, sum) : sum);
      }
    }
  }
}

// The same for rows 0 to n. The last block begins early enough to be a whole one: a row may be computed twice.
template <class T, int vectors, class Finish>
WGK_INLINE void multiply_panel(const T* w, int64_t row_step, int64_t step, int64_t n, int64_t count, const T* panel,
                               T* out, const Finish& finish) {
  if (n >= kMlpRows) {
    for (int64_t i = 0; i < n; i += kMlpRows) {
      multiply_rows<T, kMlpRows, vectors>(w, row_step, step, std::min(i, n - kMlpRows), count, panel, out, finish);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      multiply_rows<T, 1, vectors>(w, row_step, step, i, count, panel, out, finish);
    }
  }
}

// ---- masks of z > 0, a byte each

template <class T>
using Comparison = decltype(Vector<T>{} > Vector<T>{});
template <class T>
using MaskBytes = vec<int8_t, kLanes<T>>;

template <class T>
WGK_INLINE Comparison<T> load_mask(const int8_t* p) {
  return __builtin_convertvector(load_bytes<MaskBytes<T>>(p), Comparison<T>);
}

template <class T>
WGK_INLINE void store_mask(int8_t* p, Comparison<T> mask) {
  const auto bytes = __builtin_convertvector(mask, MaskBytes<T>);
  std::memcpy(p, &bytes, sizeof(bytes));
}

// What the linear part of a sweep becomes: through the activation, or through its derivative where it bends.
template <class T>
struct Bend {
  T slope;
  const int8_t* mask;  // null: unchanged

  WGK_INLINE Vector<T> operator()(int64_t, int64_t at, Vector<T> sum) const {
    if (mask == nullptr) {
      return sum;
    }
    return load_mask<T>(mask + at) ? sum : below(slope, sum);
  }
  // 0 for a ReLU whatever x is, infinity too.
  WGK_INLINE static Vector<T> below(T slope, Vector<T> x) {
    return slope == T{0} ? Vector<T>{} : splat<Vector<T>>(slope) * x;
  }
};

template <class T>
struct Activate {
  T slope;
  const T* bias;
  int8_t* mask;  // null: identity

  WGK_INLINE Vector<T> operator()(int64_t i, int64_t at, Vector<T> sum) const {
    const Vector<T> z = bias == nullptr ? sum : sum + splat<Vector<T>>(bias[i]);
    if (mask == nullptr) {
      return z;
    }
    // As torch has it for NaN: relu lets it through, leaky_relu scales it.
    const Comparison<T> above = slope == T{0} ? ~(z <= Vector<T>{}) : z > Vector<T>{};
    store_mask<T>(mask + at, above);
    return above ? z : Bend<T>::below(slope, z);
  }
};

// ---- one group

// Samples [count, D] to a panel [D, width], zero for the samples that are not there.
template <class T>
void samples_to_panel(const T* x, int64_t count, int64_t D, int64_t width, T* panel) {
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t b = 0; b < width; ++b) {
      panel[d * width + b] = b < count ? x[b * D + d] : T{0};
    }
  }
}

template <class T>
void panel_to_samples(const T* panel, int64_t count, int64_t D, int64_t width, T* x) {
  for (int64_t b = 0; b < count; ++b) {
    for (int64_t d = 0; d < D; ++d) {
      x[b * D + d] = panel[d * width + b];
    }
  }
}

// A panel [n, width] to tiles [width, columns] of its features, zero for the features that are not there.
template <class T>
void panel_to_tiles(const T* panel, int64_t n, int64_t width, T* tiles) {
  constexpr int64_t kColumns = kMlpVectors * kLanes<T>;
  for (int64_t first = 0; first < n; first += kColumns, tiles += width * kColumns) {
    for (int64_t k = 0; k < kColumns; ++k) {
      for (int64_t b = 0; b < width; ++b) {
        tiles[b * kColumns + k] = first + k < n ? panel[(first + k) * width + b] : T{0};
      }
    }
  }
}

// The norm of each sample of a panel g [D, width], and v = dP/dg in its place.
template <class T, int vectors>
void penalise(const MlpPlan<T>& plan, int64_t D, int64_t count, T* g, double* norms) {
  constexpr int kParts = vectors * kLanes<T> / kDoubles;
  constexpr int64_t kWidth = vectors * kLanes<T>;
  vdouble squares[kParts] = {};
  for (int64_t d = 0; d < D; ++d) {
    for (int k = 0; k < kParts; ++k) {
      const vdouble part = load_doubles(g + d * kWidth + k * kDoubles);
      squares[k] += part * part;
    }
  }
  double scales[kWidth];
  for (int64_t b = 0; b < kWidth; ++b) {
    const double norm = std::sqrt(squares[b / kDoubles][b % kDoubles]);
    if (b < count) {
      norms[b] = norm;
    }
    scales[b] = factor(plan.penalty, plan.B) * first_scale(plan.penalty, norm);
  }
  if (!plan.needs_grads) {
    return;
  }
  for (int64_t d = 0; d < D; ++d) {
    for (int k = 0; k < kParts; ++k) {
      T* at = g + d * kWidth + k * kDoubles;
      const vdouble scaled = load_bytes<vdouble>(scales + k * kDoubles) * load_doubles(at);
      const auto rounded = __builtin_convertvector(scaled, vec<T, kDoubles>);
      std::memcpy(at, &rounded, sizeof(rounded));
    }
  }
}

// All sweeps for one group. kept: what the weights' derivatives need of it; panels: two of the widest layer.
template <class T, int vectors>
void sweep_vectors(const MlpPlan<T>& plan, int64_t group, T* kept, T* panels, int8_t* masks) {
  constexpr int64_t kWidth = vectors * kLanes<T>;
  const MlpStep<T>* steps = plan.steps;
  const int64_t first = group * kWidth, count = std::min(kWidth, plan.B - first), D = steps[0].in;
  const auto mask = [&](const MlpStep<T>& step) { return step.bends() ? masks + step.mask : nullptr; };
  T *here = panels, *next = panels + plan.widest * kWidth;
  samples_to_panel(plan.x + first * D, count, D, kWidth, here);
  for (const MlpStep<T>* step = steps; step != steps + plan.depth; ++step, std::swap(here, next)) {
    multiply_panel<T, vectors>(step->weight, step->in, 1, step->out, step->in, here, next,
                               Activate<T>{step->slope, step->bias, mask(*step)});
  }
  const MlpStep<T>& last = steps[plan.depth - 1];
  panel_to_samples(here, count, last.out, kWidth, plan.scores + first * last.out);
  const Bend<T> bend{last.slope, mask(last)};
  for (int64_t at = 0; at < last.out * kWidth; at += kLanes<T>) {
    store(kept + last.delta + at, bend(0, at, splat<Vector<T>>(T{1})));
  }
  for (const MlpStep<T>* step = &last; step != steps; --step) {
    const MlpStep<T>& below = step[-1];
    multiply_panel<T, vectors>(step->weight, 1, step->in, step->in, step->out, kept + step->delta, kept + below.delta,
                               Bend<T>{below.slope, mask(below)});
  }
  multiply_panel<T, vectors>(steps->weight, 1, D, D, steps->out, kept + steps->delta, here, Bend<T>{1, nullptr});
  penalise<T, vectors>(plan, D, count, here, plan.norms + first);
  if (!plan.needs_grads) {
    return;
  }
  for (const MlpStep<T>* step = steps;; ++step, std::swap(here, next)) {
    panel_to_tiles(here, step->in, kWidth, kept + step->tangent);
    if (step == &last) {
      return;
    }
    multiply_panel<T, vectors>(step->weight, step->in, 1, step->out, step->in, here, next,
                               Bend<T>{step->slope, mask(*step)});
  }
}

template <class T>
void sweep_group(const MlpPlan<T>& plan, int64_t group, T* kept, T* panels, int8_t* masks) {
  plan.width == kLanes<T> ? sweep_vectors<T, 1>(plan, group, kept, panels, masks)
                          : sweep_vectors<T, kMlpVectors>(plan, group, kept, panels, masks);
}

// ---- derivatives by the weights

// `rows` rows of delta (outer) tangent from row i on, `vectors` vectors of columns from `column` on.
template <class T, int rows, int vectors>
void sum_samples(const MlpPlan<T>& plan, const MlpStep<T>& step, int64_t i, int64_t column) {
  constexpr int64_t kColumns = kMlpVectors * kLanes<T>;
  const int64_t wanted = std::min<int64_t>(vectors * kLanes<T>, step.in - column);
  const int64_t tile = step.tangent + column / kColumns * kColumns * plan.width;
  const int64_t groups_per_block = kMlpBlock / plan.width;
  T totals[rows][vectors * kLanes<T>] = {};
  for (int64_t begin = 0; begin < plan.groups(); begin += groups_per_block) {
    Vector<T> sums[rows][vectors] = {};
    for (int64_t group = begin; group < std::min(begin + groups_per_block, plan.groups()); ++group) {
      const T* kept = plan.kept + group * plan.kept_size;
      multiply_add<T, rows, vectors>(kept + step.delta + i * plan.width, plan.width, 1, kept + tile, kColumns,
                                     std::min(plan.width, plan.B - group * plan.width), sums);
    }
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) {
        T* at = totals[r] + v * kLanes<T>;
        store(at, load(at) + sums[r][v]);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    std::memcpy(step.grad_weight + (i + r) * step.in + column, totals[r], wanted * sizeof(T));
  }
}

// Rows [begin, end) of one layer: column by column of tiles, each of which stays in the cache for all rows.
template <class T>
void sum_rows(const MlpPlan<T>& plan, const MlpStep<T>& step, int64_t begin, int64_t end) {
  constexpr int64_t kColumns = kMlpVectors * kLanes<T>;
  for (int64_t column = 0; column < step.in; column += kColumns) {
    const bool whole = step.in - column > kLanes<T>;
    if (end - begin >= kMlpRows) {
      for (int64_t i = begin; i < end; i += kMlpRows) {
        const int64_t at = std::min(i, end - kMlpRows);
        whole ? sum_samples<T, kMlpRows, kMlpVectors>(plan, step, at, column)
              : sum_samples<T, kMlpRows, 1>(plan, step, at, column);
      }
    } else {
      for (int64_t i = begin; i < end; ++i) {
        whole ? sum_samples<T, 1, kMlpVectors>(plan, step, i, column) : sum_samples<T, 1, 1>(plan, step, i, column);
      }
    }
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
