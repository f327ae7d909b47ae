// numpy arrays as the batches of minibatch_discrimination and minibatch_stddev.
#pragma once

#include <utility>

#include "arrays.h"
#include "minibatch_discrimination.h"
#include "minibatch_stddev.h"

namespace wgk {

inline ProjectedBatch projected_batch(DType dtype, const py::array& m, const std::pair<int64_t, int64_t>& rows) {
  check(m.ndim() == 3, "m is not [B, F, K]");
  const auto [begin, end] = rows;
  check(0 <= begin && begin <= end && end <= m.shape(0), "not such rows");
  return {dtype, m.shape(0), m.shape(1), m.shape(2), begin, end, in(m, dtype, m.size())};
}

inline SampleGroups sample_groups(DType dtype, const py::array& x) {
  check(x.ndim() == 4 && x.shape(0) > 0, "x is not [G, M, F, P]");
  return {dtype, x.shape(0), x.shape(1), x.shape(2), x.shape(3), in(x, dtype, x.size())};
}

}  // namespace wgk
