#include "adapter.h"

#include <algorithm>
#include <vector>

namespace wgk {

bool has_dense_rows(const Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return true;
  }
  const int64_t D = features(tensor);
  if (batch(tensor) != 1 && tensor.stride(0) != D) {
    return false;
  }
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 1; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) {
      dims.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) {
      return false;
    }
    expected *= size;
  }
  return true;
}

}  // namespace wgk
