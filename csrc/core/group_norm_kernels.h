// The passes over groups that lie in one stretch of memory. Compiled once per instruction set (for_each_isa.h).
#include "group_norm_vectors.h"

namespace wgk {
namespace WGK_ISA {

// A long row is read once, block by block.
constexpr int64_t kMomentsBlock = 1 << 12, kFirstLook = 1 << 8;

// mean and the sum of (x - mean)^2. Of each block, around the mean of its first elements: that is no further from the
// block's own mean than 4 deviations, whatever the numbers, so that the squares of the differences lose no digits that
// count. Blocks are put together by Chan's formula.
template <class T>
WGK_INLINE void moments(const T* x, int64_t n, double& mean, double& squares) {
  mean = 0;
  squares = 0;
  for (int64_t first = 0; first < n; first += kMomentsBlock) {
    const int64_t count = std::min(kMomentsBlock, n - first), few = std::min(kFirstLook, count);
    const T* const from = x + first;
    VectorSums<T, 1> rough;
    rough.add(few, [=](auto at, auto& parts) __attribute__((always_inline)) { parts[0] += at.load(from); });
    const auto around = static_cast<Compute<T>>(rough.total(0) / few);
    const Vector<T> middle = splat<Vector<T>>(around);
    VectorSums<T, 2> sums;
    sums.add(count, [=](auto at, auto& parts) __attribute__((always_inline)) {
      const Vector<T> d = at.load(from, middle) - middle;
      parts[0] += d;
      parts[1] = fma(d, d, parts[1]);
    });
    const double off = sums.total(0) / count, step = around + off - mean, all = first + count;
    mean += step * count / all;
    squares += sums.total(1) - off * sums.total(0) + step * step * first * count / all;
  }
}

// xhat' = (x - mean) r, with what is to be taken from it for xhat.
template <class T>
struct Standard {
  Vector<T> mean, r, minus_shift;
  WGK_INLINE Standard(double mean_of, double r_of, double shift)
      : mean(splat<Vector<T>>(static_cast<Compute<T>>(mean_of))),
        r(splat<Vector<T>>(static_cast<Compute<T>>(r_of))),
        minus_shift(splat<Vector<T>>(static_cast<Compute<T>>(-shift))) {}
  template <class At>
  WGK_INLINE Vector<T> rough(const At& at, const T* x) const {
    return (at.load(x, mean) - mean) * r;
  }
  template <class At>
  WGK_INLINE Vector<T> operator()(const At& at, const T* x) const {
    return fma(at.load(x, mean) - mean, r, minus_shift);
  }
};

// Parameters of a run: one number for all of it, or one for each element. Null is `missing`.
template <class T, bool each>
struct RunParam {
  const Compute<T>* from;
  Vector<T> same;
  WGK_INLINE RunParam(const Compute<T>* params, int64_t run, double missing = 0) : from(params) {
    if constexpr (!each) {
      same = splat<Vector<T>>(params == nullptr ? static_cast<Compute<T>>(missing) : params[run]);
    }
  }
  template <class At>
  WGK_INLINE Vector<T> operator()(const At& at) const {
    if constexpr (each) {
      return at.load(from);
    } else {
      return same;
    }
  }
};

template <class T, bool each>
void normalise_group(const NormRows<T>& rows, double eps, int64_t b, int64_t group, Compute<T>* mean_out,
                     Compute<T>* rstd_out) {
  const int64_t n = rows.group_size(), row = b * rows.groups + group, at_row = row * n;
  double mean, squares;
  moments(rows.x + at_row, n, mean, squares);
  const double r = 1 / std::sqrt(std::max(squares, 0.0) / n + eps);
  mean_out[row] = static_cast<Compute<T>>(mean);
  rstd_out[row] = static_cast<Compute<T>>(r);
  const Standard<T> xhat(mean, r, (mean - mean_out[row]) * r);
  for (int64_t k = 0; k < rows.runs; ++k) {
    const int64_t param = rows.param(each, group, k);
    const RunParam<T, each> weight(each ? rows.weight + param : rows.weight, param, 1);
    const RunParam<T, each> bias(each ? rows.bias + param : rows.bias, param);
    const T* const x = rows.x + at_row + k * rows.run;
    T* const y = rows.y + at_row + k * rows.run;
    for_vectors<T>(0, rows.run, [&](auto at) __attribute__((always_inline)) {
      at.store(y, fma(xhat(at, x), weight(at), bias(at)), rows.streaming);
    });
  }
}

// The sums of a pass over the runs of a group.
template <class T, bool each>
WGK_INLINE GroupNormSums group_sums(const NormRows<T>& rows, int64_t row, int64_t group, const Standard<T>& standard) {
  VectorSums<T, 3> sums;
  for (int64_t k = 0; k < rows.runs; ++k) {
    const int64_t at_run = row * rows.group_size() + k * rows.run, param = rows.param(each, group, k);
    const RunParam<T, each> weight(each ? rows.weight + param : rows.weight, param, 1);
    const T *const x = rows.x + at_run, *const g = rows.g + at_run;
    sums.add(rows.run, [&](auto at, auto& parts) __attribute__((always_inline)) {
      const Vector<T> rough = standard.rough(at, x), a = weight(at) * at.load(g);
      parts[0] += rough;
      parts[1] += a;
      parts[2] = fma(a, rough, parts[2]);
    });
  }
  return {sums.total(0), sums.total(1), sums.total(2)};
}

// Adds a group's part to the gradients of its parameters: by_weight and by_bias, as the parameters of rows; double for
// runs, else the computing type, of a few samples.
template <class T, bool each, bool has_grads>
void backward_group(const NormRows<T>& rows, int64_t b, int64_t group,
                    std::conditional_t<each, Compute<T>, double>* by_weight,
                    std::conditional_t<each, Compute<T>, double>* by_bias) {
  const int64_t n = rows.group_size(), row = b * rows.groups + group;
  const double r = rows.rstd[row];
  const GroupNormFactors factors(group_sums<T, each>(rows, row, group, {rows.mean[row], r, 0}), n, r);
  const Standard<T> standard(rows.mean[row], r, factors.shift);
  const Vector<T> by_x = splat<Vector<T>>(static_cast<Compute<T>>(factors.by_x));
  const Vector<T> constant = splat<Vector<T>>(static_cast<Compute<T>>(factors.constant));
  for (int64_t k = 0; k < rows.runs; ++k) {
    const int64_t at_run = row * n + k * rows.run, param = rows.param(each, group, k);
    const RunParam<T, each> weight(each ? rows.weight + param : rows.weight, param, 1);
    const T *const x = rows.x + at_run, *const g = rows.g + at_run;
    T* const grad_x = rows.grad_x + at_run;
    const auto step = [&](auto at, auto& parts) __attribute__((always_inline)) {
      const Vector<T> xhat = standard(at, x), g_at = at.load(g);
      at.store(grad_x, fma(weight(at) * g_at, standard.r, fma(xhat, by_x, constant)), rows.streaming);
      if constexpr (has_grads && each) {
        at.store(by_weight + param, fma(g_at, xhat, at.load(by_weight + param)));
        at.store(by_bias + param, at.load(by_bias + param) + g_at);
      } else if constexpr (has_grads) {
        parts[0] = fma(g_at, xhat, parts[0]);
        parts[1] += g_at;
      }
    };
    if constexpr (has_grads && !each) {
      VectorSums<T, 2> sums;
      sums.add(rows.run, step);
      by_weight[param] += sums.total(0);
      by_bias[param] += sums.total(1);
    } else {
      Vector<T> none[1] = {};
      for_vectors<T>(0, rows.run, [&](auto at) __attribute__((always_inline)) { step(at, none); });
    }
  }
}

template <class T, bool each, bool along>
WGK_INLINE GroupNormTangentSums tangent_sums(const NormRows<T>& rows, int64_t row, int64_t group,
                                             const Standard<T>& standard) {
  VectorSums<T, along ? 8 : 6> sums;
  for (int64_t k = 0; k < rows.runs; ++k) {
    const int64_t at_run = row * rows.group_size() + k * rows.run, param = rows.param(each, group, k);
    const RunParam<T, each> weight(each ? rows.weight + param : rows.weight, param, 1);
    const RunParam<T, each && along> p(each && along ? rows.p + param : rows.p, param);
    const T *const x = rows.x + at_run, *const g = rows.g + at_run, *const u = rows.u + at_run;
    sums.add(rows.run, [&](auto at, auto& parts) __attribute__((always_inline)) {
      const Vector<T> rough = standard.rough(at, x), g_at = at.load(g), u_at = at.load(u), a = weight(at) * g_at;
      parts[0] += rough;
      parts[1] += a;
      parts[2] = fma(a, rough, parts[2]);
      parts[3] += u_at;
      parts[4] = fma(u_at, rough, parts[4]);
      parts[5] = fma(a, u_at, parts[5]);
      if constexpr (along) {
        const Vector<T> pg = p(at) * g_at;
        parts[6] += pg;
        parts[7] = fma(pg, rough, parts[7]);
      }
    });
  }
  GroupNormTangentSums result{{sums.total(0), sums.total(1), sums.total(2)}, sums.total(3), sums.total(4),
                              sums.total(5),  0, 0};
  if constexpr (along) {
    result.P = sums.total(6);
    result.PX = sums.total(7);
  }
  return result;
}

// along: the gradients of grad_weight and grad_bias, p and q, are there (and zeros for one that is not).
template <class T, bool each, bool has_grads, bool along>
void double_backward_group(const NormRows<T>& rows, int64_t b, int64_t group,
                           std::conditional_t<each, Compute<T>, double>* by_weight) {
  using C = Compute<T>;
  const int64_t n = rows.group_size(), row = b * rows.groups + group;
  const double r = rows.rstd[row];
  const GroupNormTangentFactors factors(tangent_sums<T, each, along>(rows, row, group, {rows.mean[row], r, 0}), n, r);
  const Standard<T> standard(rows.mean[row], r, factors.shift);
  const auto all = [](double x) __attribute__((always_inline)) { return splat<Vector<T>>(static_cast<C>(x)); };
  const Vector<T> U = all(factors.U), minus_UX = all(-factors.UX), by_a = all(factors.by_a), by_u = all(factors.by_u);
  const Vector<T> by_x = all(factors.by_x), constant = all(factors.constant);
  for (int64_t k = 0; k < rows.runs; ++k) {
    const int64_t at_run = row * n + k * rows.run, param = rows.param(each, group, k);
    const RunParam<T, each> weight(each ? rows.weight + param : rows.weight, param, 1);
    const RunParam<T, each && along> p(each && along ? rows.p + param : rows.p, param);
    const RunParam<T, each && along> q(each && along ? rows.q + param : rows.q, param);
    const T *const x = rows.x + at_run, *const g = rows.g + at_run, *const u = rows.u + at_run;
    T *const grad_x = rows.grad_x + at_run, *const grad_grad_y = rows.y == nullptr ? nullptr : rows.y + at_run;
    const auto step = [&](auto at, auto& parts) __attribute__((always_inline)) {
      const Vector<T> xhat = standard(at, x), g_at = at.load(g), u_at = at.load(u), w = weight(at);
      const Vector<T> rs = fma(xhat, minus_UX, u_at - U) * standard.r;
      Vector<T> by_g = w * by_a, rest = fma(xhat, by_x, constant), out = w * rs;
      if constexpr (along) {
        by_g = fma(p(at), standard.r, by_g);
        out = fma(p(at), xhat, out + q(at));
      }
      if (grad_grad_y != nullptr) {
        at.store(grad_grad_y, out, rows.streaming);
      }
      at.store(grad_x, fma(g_at, by_g, fma(u_at, by_u, rest)), rows.streaming);
      if constexpr (has_grads && each) {
        at.store(by_weight + param, fma(g_at, rs, at.load(by_weight + param)));
      } else if constexpr (has_grads) {
        parts[0] = fma(g_at, rs, parts[0]);
      }
    };
    if constexpr (has_grads && !each) {
      VectorSums<T, 1> sums;
      sums.add(rows.run, step);
      by_weight[param] += sums.total(0);
    } else {
      Vector<T> none[1] = {};
      for_vectors<T>(0, rows.run, [&](auto at) __attribute__((always_inline)) { step(at, none); });
    }
  }
}

}  // namespace WGK_ISA
}  // namespace wgk

#include "group_norm_columns.h"
