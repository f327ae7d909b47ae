// numpy arrays as the projected batches of minibatch_discrimination.
#pragma once

#include <utility>

#include "arrays.h"
#include "minibatch_discrimination.h"

namespace wgk {

inline ProjectedBatch projected_batch(DType dtype, const py::array& m, const std::pair<int64_t, int64_t>& rows) {
  check(m.ndim() == 3, "m is not [B, F, K]");
  const auto [begin, end] = rows;
  check(0 <= begin && begin <= end && end <= m.shape(0), "not such rows");
  return {dtype, m.shape(0), m.shape(1), m.shape(2), begin, end, in(m, dtype, m.size())};
}

}  // namespace wgk
