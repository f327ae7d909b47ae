// The passes over samples of [S, C] in memory (channels_last): a column, which is a channel, has its sums, a group
// those of its columns, and every column factors of its own. Tiles of positions are walked column by column, so that
// memory is read in order. Compiled once per instruction set (for_each_isa.h).

namespace wgk {
namespace WGK_ISA {

template <class T>
WGK_INLINE void add_widened(double* to, const Whole<T>& at, Vector<T> v) {
  add_to(to + at.j, v);
}

template <class T>
WGK_INLINE void add_widened(double* to, const Rest<T>& at, Vector<T> v) {
  for (int64_t k = 0; k < at.rest; ++k) {
    to[at.j + k] += v[k];
  }
}

// Sums over positions, `count` of each column: f(at, offset, parts) adds the terms of one vector of one position.
template <int count, class T, class F>
WGK_INLINE void sum_columns(const NormColumns<T>& columns, const F& f) {
  const int64_t C = columns.C;
  std::fill(columns.sums, columns.sums + count * C, 0.0);
  for (int64_t first = 0; first < columns.S; first += kVectorsInFloat) {
    const int64_t end = std::min<int64_t>(first + kVectorsInFloat, columns.S);
    for_vectors<T>(0, C, [&](auto at) __attribute__((always_inline)) {
      Vector<T> parts[count] = {};
      for (int64_t s = first; s < end; ++s) {
        f(at, s * C, parts);
      }
      for (int k = 0; k < count; ++k) {
        add_widened(columns.sum(k), at, parts[k]);
      }
    });
  }
}

template <class T, class F>
WGK_INLINE void for_positions(const NormColumns<T>& columns, const F& f) {
  for (int64_t s = 0; s < columns.S; ++s) {
    for_vectors<T>(0, columns.C, [&](auto at) __attribute__((always_inline)) { f(at, s * columns.C); });
  }
}

// Calls f(group, first channel, last) for each group.
template <class T, class F>
WGK_INLINE void for_groups(const NormColumns<T>& columns, const F& f) {
  for (int64_t group = 0; group < columns.groups; ++group) {
    f(group, group * columns.channels(), (group + 1) * columns.channels());
  }
}

template <class T>
void normalise_sample(const NormColumns<T>& columns, double eps, Compute<T>* mean_out, Compute<T>* rstd_out) {
  using V = Vector<T>;
  const T* const x = columns.x;
  const double S = static_cast<double>(columns.S);
  sum_columns<1>(columns, [=](auto at, int64_t offset, auto& parts) __attribute__((always_inline)) {
    parts[0] += at.load(x + offset);
  });
  Compute<T>* const middle = columns.factor(0);
  for (int64_t c = 0; c < columns.C; ++c) {
    middle[c] = static_cast<Compute<T>>(columns.sums[c] / S);
  }
  sum_columns<2>(columns, [=](auto at, int64_t offset, auto& parts) __attribute__((always_inline)) {
    const V d = at.load(x + offset) - at.load(middle);
    parts[0] += d;
    parts[1] = fma(d, d, parts[1]);
  });
  for_groups(columns, [&](int64_t group, int64_t begin, int64_t end) {
    double mean = 0, squares = 0;
    for (int64_t c = begin; c < end; ++c) {  // Chan's formula
      const double off = columns.sum(0)[c] / S, step = middle[c] + off - mean, before = static_cast<double>(c - begin);
      mean += step / (before + 1);
      squares += columns.sum(1)[c] - off * columns.sum(0)[c] + step * step * S * before / (before + 1);
    }
    const double r = 1 / std::sqrt(std::max(squares, 0.0) / (S * (end - begin)) + eps);
    mean_out[group] = static_cast<Compute<T>>(mean);
    rstd_out[group] = static_cast<Compute<T>>(r);
    for (int64_t c = begin; c < end; ++c) {
      const double w = columns.weight_of(c) * r, b = columns.bias == nullptr ? 0 : columns.bias[c];
      middle[c] = mean_out[group];
      columns.factor(1)[c] = static_cast<Compute<T>>(w);
      columns.factor(2)[c] = static_cast<Compute<T>>(b - (mean - mean_out[group]) * w);
    }
  });
  const Compute<T>*scale = columns.factor(1), *shift = columns.factor(2);
  for_positions(columns, [&](auto at, int64_t offset) __attribute__((always_inline)) {
    const V d = at.load(x + offset, at.load(middle)) - at.load(middle);
    at.store(columns.y + offset, fma(d, at.load(scale), at.load(shift)), columns.streaming);
  });
}

// x - mean of each column's group; xhat' is that times rstd.
template <class T>
WGK_INLINE void spread_means(const NormColumns<T>& columns) {
  for_groups(columns, [&](int64_t group, int64_t begin, int64_t end) {
    std::fill(columns.factor(0) + begin, columns.factor(0) + end, columns.mean[group]);
  });
}

// by_weight, by_bias: [C], null where they are not wanted.
template <class T>
void backward_sample(const NormColumns<T>& columns, double* by_weight, double* by_bias) {
  using V = Vector<T>;
  const T *const x = columns.x, *const g = columns.g;
  const Compute<T>* const mean = columns.factor(0);
  spread_means(columns);
  sum_columns<3>(columns, [=](auto at, int64_t offset, auto& parts) __attribute__((always_inline)) {
    const V d = at.load(x + offset) - at.load(mean), g_at = at.load(g + offset);
    parts[0] += d;
    parts[1] += g_at;
    parts[2] = fma(g_at, d, parts[2]);
  });
  const double *const X = columns.sum(0), *const G = columns.sum(1), *const GX = columns.sum(2);
  for_groups(columns, [&](int64_t group, int64_t begin, int64_t end) {
    const double r = columns.rstd[group];
    GroupNormSums sums{0, 0, 0};
    for (int64_t c = begin; c < end; ++c) {
      const double w = columns.weight_of(c);
      sums.X += r * X[c];
      sums.A += w * G[c];
      sums.AX += w * r * GX[c];
    }
    const GroupNormFactors factors(sums, static_cast<double>(columns.S * (end - begin)), r);
    for (int64_t c = begin; c < end; ++c) {
      columns.factor(1)[c] = static_cast<Compute<T>>(columns.weight_of(c) * r);
      columns.factor(2)[c] = static_cast<Compute<T>>(factors.by_x * r);
      columns.factor(3)[c] = static_cast<Compute<T>>(factors.constant - factors.by_x * factors.shift);
      if (by_weight != nullptr) {
        by_weight[c] += r * GX[c] - factors.shift * G[c];
        by_bias[c] += G[c];
      }
    }
  });
  const Compute<T>*by_g = columns.factor(1), *by_d = columns.factor(2), *constant = columns.factor(3);
  for_positions(columns, [&](auto at, int64_t offset) __attribute__((always_inline)) {
    const V d = at.load(x + offset) - at.load(mean);
    const V rest = fma(d, at.load(by_d), at.load(constant));
    at.store(columns.grad_x + offset, fma(at.load(g + offset), at.load(by_g), rest), columns.streaming);
  });
}

// The sums over a group's columns: of d = x - mean, u, u d, g, g d and g u.
template <class T>
GroupNormTangentSums sums_of_columns(const NormColumns<T>& columns, double r, int64_t begin, int64_t end) {
  GroupNormTangentSums sums{{0, 0, 0}, 0, 0, 0, 0, 0};
  for (int64_t c = begin; c < end; ++c) {
    const double w = columns.weight_of(c), p = columns.p == nullptr ? 0 : columns.p[c];
    const double G = columns.sum(3)[c], GX = r * columns.sum(4)[c];
    sums.of.X += r * columns.sum(0)[c];
    sums.of.A += w * G;
    sums.of.AX += w * GX;
    sums.U += columns.sum(1)[c];
    sums.UX += r * columns.sum(2)[c];
    sums.AU += w * columns.sum(5)[c];
    sums.P += p * G;
    sums.PX += p * GX;
  }
  return sums;
}

// The factors of u, d and 1 in grad_grad_y, and of g, u, d and 1 in grad_x.
template <class T>
void tangent_factors(const NormColumns<T>& columns, double* by_weight) {
  for_groups(columns, [&](int64_t group, int64_t begin, int64_t end) {
    const double r = columns.rstd[group];
    const GroupNormTangentFactors of(sums_of_columns(columns, r, begin, end),
                                     static_cast<double>(columns.S * (end - begin)), r);
    const double rest = of.constant - of.by_x * of.shift;
    for (int64_t c = begin; c < end; ++c) {
      const double w = columns.weight_of(c), p = columns.p == nullptr ? 0 : columns.p[c];
      const double q = columns.q == nullptr ? 0 : columns.q[c], along = p - w * r * of.UX;
      const double values[] = {w * r,           along * r,  q - w * r * of.U - along * of.shift,
                               r * p + of.by_a * w, of.by_u, of.by_x * r, rest};
      for (int k = 0; k < 7; ++k) {
        columns.factor(k + 1)[c] = static_cast<Compute<T>>(values[k]);
      }
      if (by_weight != nullptr) {
        const double G = columns.sum(3)[c], GX = r * columns.sum(4)[c] - of.shift * G;
        by_weight[c] += r * (columns.sum(5)[c] - of.U * G - of.UX * GX);
      }
    }
  });
}

// by_weight: [C], null where it is not wanted.
template <class T>
void double_backward_sample(const NormColumns<T>& columns, double* by_weight) {
  using V = Vector<T>;
  const T *const x = columns.x, *const g = columns.g, *const u = columns.u;
  const Compute<T>* const mean = columns.factor(0);
  spread_means(columns);
  sum_columns<6>(columns, [=](auto at, int64_t offset, auto& parts) __attribute__((always_inline)) {
    const V d = at.load(x + offset) - at.load(mean), g_at = at.load(g + offset), u_at = at.load(u + offset);
    parts[0] += d;
    parts[1] += u_at;
    parts[2] = fma(u_at, d, parts[2]);
    parts[3] += g_at;
    parts[4] = fma(g_at, d, parts[4]);
    parts[5] = fma(g_at, u_at, parts[5]);
  });
  tangent_factors(columns, by_weight);
  for_positions(columns, [&](auto at, int64_t offset) __attribute__((always_inline)) {
    const auto factor = [&](int k) __attribute__((always_inline)) { return at.load(columns.factor(k)); };
    const V d = at.load(x + offset) - at.load(mean), g_at = at.load(g + offset), u_at = at.load(u + offset);
    if (columns.y != nullptr) {
      at.store(columns.y + offset, fma(u_at, factor(1), fma(d, factor(2), factor(3))), columns.streaming);
    }
    const V grad_x = fma(g_at, factor(4), fma(u_at, factor(5), fma(d, factor(6), factor(7))));
    at.store(columns.grad_x + offset, grad_x, columns.streaming);
  });
}

}  // namespace WGK_ISA
}  // namespace wgk
