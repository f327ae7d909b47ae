// The sweeps over one group of samples, and the sums over samples. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"
#include "panel_products.h"

namespace wgk {
namespace WGK_ISA {

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
  constexpr int64_t kColumns = kBlockVectors * kLanes<T>;
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
                          : sweep_vectors<T, kBlockVectors>(plan, group, kept, panels, masks);
}

// ---- derivatives by the weights

// `rows` rows of delta (outer) tangent from row i on, `vectors` vectors of columns from `column` on.
template <class T, int rows, int vectors>
void sum_samples(const MlpPlan<T>& plan, const MlpStep<T>& step, int64_t i, int64_t column) {
  constexpr int64_t kColumns = kBlockVectors * kLanes<T>;
  const int64_t wanted = std::min<int64_t>(vectors * kLanes<T>, step.in - column);
  const int64_t tile = step.tangent + column / kColumns * kColumns * plan.width;
  const int64_t groups_per_block = kBlockTerms / plan.width;
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
  constexpr int64_t kColumns = kBlockVectors * kLanes<T>;
  for (int64_t column = 0; column < step.in; column += kColumns) {
    const bool whole = step.in - column > kLanes<T>;
    if (end - begin >= kBlockRows) {
      for (int64_t i = begin; i < end; i += kBlockRows) {
        const int64_t at = std::min(i, end - kBlockRows);
        whole ? sum_samples<T, kBlockRows, kBlockVectors>(plan, step, at, column)
              : sum_samples<T, kBlockRows, 1>(plan, step, at, column);
      }
    } else {
      for (int64_t i = begin; i < end; ++i) {
        whole ? sum_samples<T, 1, kBlockVectors>(plan, step, i, column) : sum_samples<T, 1, 1>(plan, step, i, column);
      }
    }
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
