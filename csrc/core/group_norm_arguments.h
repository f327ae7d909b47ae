// What the CPU kernels of group_norm walk over.
#pragma once

#include <type_traits>

#include "common.h"

namespace wgk {

// Of parameters and statistics.
template <class T>
using Wide = std::conditional_t<std::is_same_v<T, double>, double, float>;

// Samples in one stretch of memory: `groups` groups of `runs` runs of `run` elements. Parameters and their gradients
// are one for each element of a sample, [groups * run] (`each`; and runs is 1), or one for each run, [groups * runs].
template <class T>
struct NormRows {
  int64_t groups, runs, run;
  bool streaming;
  const T *x, *g, *u;
  const Wide<T>*weight, *bias, *p, *q, *mean, *rstd;
  T *y, *grad_x;

  int64_t group_size() const { return runs * run; }
  // Where the parameters of run k of a group begin.
  int64_t param(bool each, int64_t group, int64_t k) const { return each ? group * run : group * runs + k; }
};

constexpr int kColumnSums = 6, kColumnFactors = 8;

// One sample of [S, C] in memory.
template <class T>
struct NormColumns {
  int64_t C, S, groups;
  bool streaming;
  const T *x, *g, *u;
  const Wide<T>*weight, *bias, *p, *q, *mean, *rstd;  // mean, rstd: [groups], of this sample
  T *y, *grad_x;
  double* sums;      // [kColumnSums, C]
  Wide<T>* factors;  // [kColumnFactors, C]

  int64_t channels() const { return C / groups; }
  double* sum(int k) const { return sums + k * C; }
  Wide<T>* factor(int k) const { return factors + k * C; }
  double weight_of(int64_t c) const { return weight == nullptr ? 1.0 : weight[c]; }
};

}  // namespace wgk
