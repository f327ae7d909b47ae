// One feature of a point, as it came and as the pair kernels take it.
#pragma once

#include "any_element.cuh"
#include "pair_points.h"

namespace wgk {

// As it came; d < D.
__device__ inline double point_feature(const CentredPoints& p, int64_t b, int64_t row, int64_t d) {
  const bool of_y = row >= p.N;
  const void* points = of_y ? p.y : p.x;
  const int64_t at = of_y ? (b * p.M + row - p.N) * p.D + d : (b * p.N + row) * p.D + d;
  return points == nullptr ? 0 : load_element(p.dtype, points, at);
}

// Less the mean; 0 behind D.
__device__ inline double wide_feature(const CentredPoints& p, int64_t b, int64_t row, int64_t d) {
  return d < p.D ? point_feature(p, b, row, d) - p.origins[b * p.D + d] : 0;
}

// The very number that pairs were computed from.
__device__ inline double centred_feature(const CentredPoints& p, PairNumbers numbers, int64_t b, int64_t row,
                                         int64_t d) {
  const int64_t at = (b * (p.N + p.M) + row) * p.stride + d;
  switch (numbers) {
    case PairNumbers::exact:
      return load_element(p.dtype, p.exact_rows, at);
    case PairNumbers::narrow:
      return p.rows[at];
    default:
      return wide_feature(p, b, row, d);
  }
}

}  // namespace wgk
