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

// A sum of numbers in the order in which they are added, whole vectors of double at a time.
template <class T>
struct RowSum {
  vdouble sums{};
  double rest = 0;

  void add(const T* row, int64_t count) {
    int64_t b = 0;
    for (; b + kDoubles <= count; b += kDoubles) {
      sums += load_doubles(row + b);
    }
    for (; b < count; ++b) {
      rest += row[b];
    }
  }
  double total() const { return sum_lanes(sums) + rest; }
};

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

// The sweeps over one group of samples. kept: what the weights' derivatives need of it; panels: two of the widest
// layer, which sweeps go through in turns; masks: where activations bend.
template <class T, int vectors>
struct GroupSweep {
  static constexpr int64_t kWidth = vectors * kLanes<T>;
  const MlpPlan<T>& plan;
  int64_t group;
  T* kept;
  T *here, *next;
  int8_t* masks;

  const MlpStep<T>* end() const { return plan.steps + plan.depth; }
  int8_t* mask(const MlpStep<T>& step) const { return step.bends() ? masks + step.mask : nullptr; }
  Bend<T> bend(const MlpStep<T>& step) const { return {step.slope, mask(step)}; }

  // From samples to scores.
  void forward() {
    const SampleKind kind = plan.kind(group);
    const bool keeps_inputs = plan.needs_grads && kind != SampleKind::mixed;
    const int64_t D = plan.steps->in;
    const T* samples = plan.samples[static_cast<int>(kind)] + plan.first(group) * D;
    samples_to_panel(samples, plan.count(group), D, kWidth, here);
    for (const MlpStep<T>* step = plan.steps; step != end(); ++step, std::swap(here, next)) {
      if (keeps_inputs) {
        panel_to_tiles(here, step->in, kWidth, kept + step->factor);
      }
      multiply_panel<T, vectors>(step->weight, step->in, 1, step->out, step->in, here, next,
                                 Activate<T>{step->slope, step->bias, mask(*step)});
    }
  }

  // From scores to the adjoint of the first layer.
  void adjoint() {
    const MlpStep<T>& last = end()[-1];
    const auto seed = splat<Vector<T>>(static_cast<T>(plan.seed(plan.kind(group))));
    for (int64_t at = 0; at < last.out * kWidth; at += kLanes<T>) {
      store(kept + last.delta + at, bend(last)(0, at, seed));
    }
    for (const MlpStep<T>* step = &last; step != plan.steps; --step) {
      multiply_panel<T, vectors>(step->weight, 1, step->in, step->in, step->out, kept + step->delta,
                                 kept + step[-1].delta, bend(step[-1]));
    }
  }

  void penalty() {
    const MlpStep<T>& step = *plan.steps;
    multiply_panel<T, vectors>(step.weight, 1, step.in, step.in, step.out, kept + step.delta, here,
                               Bend<T>{1, nullptr});
    penalise<T, vectors>(plan, step.in, plan.count(group), here, plan.norms + plan.first(group));
  }

  void tangent() {
    for (const MlpStep<T>* step = plan.steps;; ++step, std::swap(here, next)) {
      panel_to_tiles(here, step->in, kWidth, kept + step->factor);
      if (step + 1 == end()) {
        return;
      }
      multiply_panel<T, vectors>(step->weight, step->in, 1, step->out, step->in, here, next, bend(*step));
    }
  }

  void run() {
    forward();
    if (plan.kind(group) == SampleKind::mixed) {
      adjoint();
      penalty();
      if (plan.needs_grads) {
        tangent();
      }
    } else {
      RowSum<T> sum;
      for (int64_t k = 0; k < end()[-1].out; ++k) {
        sum.add(here + k * kWidth, plan.count(group));
      }
      plan.score_sums[group] = sum.total();
      if (plan.needs_grads) {
        adjoint();
      }
    }
  }
};

template <class T>
void sweep_group(const MlpPlan<T>& plan, int64_t group, T* kept, T* panels, int8_t* masks) {
  T* next = panels + plan.widest * plan.width;
  if (plan.width == kLanes<T>) {
    GroupSweep<T, 1>{plan, group, kept, panels, next, masks}.run();
  } else {
    GroupSweep<T, kBlockVectors>{plan, group, kept, panels, next, masks}.run();
  }
}

// ---- derivatives by weights and biases

// `rows` rows of delta (outer) factor from row i on, `vectors` vectors of columns from `column` on.
template <class T, int rows, int vectors>
void sum_samples(const MlpPlan<T>& plan, const MlpStep<T>& step, int64_t i, int64_t column) {
  constexpr int64_t kColumns = kBlockVectors * kLanes<T>;
  const int64_t wanted = std::min<int64_t>(vectors * kLanes<T>, step.in - column);
  const int64_t tile = step.factor + column / kColumns * kColumns * plan.width;
  const int64_t groups_per_block = kBlockTerms / plan.width;
  T totals[rows][vectors * kLanes<T>] = {};
  for (int64_t begin = 0; begin < plan.groups(); begin += groups_per_block) {
    Vector<T> sums[rows][vectors] = {};
    for (int64_t group = begin; group < std::min(begin + groups_per_block, plan.groups()); ++group) {
      const T* kept = plan.kept + group * plan.kept_size;
      multiply_add<T, rows, vectors>(kept + step.delta + i * plan.width, plan.width, 1, kept + tile, kColumns,
                                     plan.count(group), sums);
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

// The derivatives by biases [begin, end) of one layer.
template <class T>
void sum_adjoints(const MlpPlan<T>& plan, const MlpStep<T>& step, int64_t begin, int64_t end) {
  for (int64_t i = begin; i < end; ++i) {
    RowSum<T> sum;
    for (int64_t group = 0; group < plan.groups(); ++group) {
      if (plan.kind(group) != SampleKind::mixed) {
        sum.add(plan.kept + group * plan.kept_size + step.delta + i * plan.width, plan.count(group));
      }
    }
    step.grad_bias[i] = static_cast<T>(sum.total());
  }
}

// The derivatives by rows [begin, end) of one layer: column by column of tiles, each of which stays in the cache for
// all rows.
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
  if (step.grad_bias != nullptr) {
    sum_adjoints(plan, step, begin, end);
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
