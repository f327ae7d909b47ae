// Weight clipping in place: w <- min(max(w, low), high), for a list of tensors in one call.
#pragma once

#include "common.h"

namespace wgk {

// One tensor of any shape and strides (in elements); its elements do not overlap.
struct ClipTensor {
  void* data;
  DType dtype;
  int64_t dims;
  const int64_t* sizes;
  const int64_t* strides;
};

// NaN stays NaN. The bounds are rounded to each tensor's dtype first.
void clip_weights(Isa isa, ParallelFor run, const ClipTensor* tensors, int64_t count, double low, double high);

// The same of device memory, in as few launches as their arguments allow: 120 tensors at most in each.
CudaStatus clip_weights_cuda(CudaStream stream, const ClipTensor* tensors, int64_t count, double low, double high);

}  // namespace wgk
