// The memory of a tensor that is to be clipped, in as few dimensions as can be.
#pragma once

#include <algorithm>
#include <utility>
#include <vector>

#include "weight_clip.h"

namespace wgk {

// A tensor as runs of equally spaced elements: dense tensors, in whatever order of dimensions, are one run.
struct Runs {
  int64_t count = 1, length = 1, stride = 1;
  std::vector<std::pair<int64_t, int64_t>> outer;  // (size, stride), fastest first

  explicit Runs(const ClipTensor& tensor) {
    if (tensor.dims == 1) {
      length = tensor.sizes[0];
      stride = tensor.strides[0];
      return;
    }
    std::vector<std::pair<int64_t, int64_t>> dims;
    for (int64_t d = 0; d < tensor.dims; ++d) {
      if (tensor.sizes[d] != 1) {
        dims.emplace_back(tensor.strides[d], tensor.sizes[d]);
      }
    }
    std::sort(dims.begin(), dims.end());
    if (!dims.empty()) {
      stride = dims[0].first;
      length = dims[0].second;
    }
    for (size_t d = 1; d < dims.size(); ++d) {
      if (outer.empty() && dims[d].first == stride * length) {
        length *= dims[d].second;
      } else if (!outer.empty() && dims[d].first == outer.back().first * outer.back().second) {
        outer.back().first *= dims[d].second;
        count *= dims[d].second;
      } else {
        outer.emplace_back(dims[d].second, dims[d].first);
        count *= dims[d].second;
      }
    }
  }

  int64_t offset(int64_t run) const {
    int64_t elements = 0;
    for (const auto& [size, step] : outer) {
      elements += run % size * step;
      run /= size;
    }
    return elements;
  }
};

inline int64_t element_size(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

}  // namespace wgk
