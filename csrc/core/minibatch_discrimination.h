// How close each sample is to the others: o[i, f] = sum_{j != i} exp(-|m[i, f] - m[j, f]|_1), and its derivatives.
#pragma once

#include "common.h"

namespace wgk {

// m: [B, F, K] of dtype, dense; o is computed for the rows i in [begin, end), against all rows j.
struct ProjectedBatch {
  DType dtype;
  int64_t B, F, K;
  int64_t begin, end;
  const void* m;

  WGK_HOST_DEVICE int64_t rows() const { return end - begin; }
};

// o, grad_o, grad_grad_o: [rows, F]; grad_m, grad_grad_m: [B, F, K]; all of dtype.
void minibatch_discrimination(Isa isa, ParallelFor run, const ProjectedBatch& batch, void* o);
void minibatch_discrimination_backward(Isa isa, ParallelFor run, const ProjectedBatch& batch, const void* grad_o,
                                       void* grad_m);
void minibatch_discrimination_double_backward(Isa isa, ParallelFor run, const ProjectedBatch& batch,
                                              const void* grad_grad_m, const void* grad_o, void* grad_grad_o,
                                              void* grad_m);

// The same of device memory: enqueued on the stream.
CudaStatus minibatch_discrimination_cuda(CudaStream stream, const ProjectedBatch& batch, void* o);
CudaStatus minibatch_discrimination_backward_cuda(CudaStream stream, const ProjectedBatch& batch, const void* grad_o,
                                                  void* grad_m);
CudaStatus minibatch_discrimination_double_backward_cuda(CudaStream stream, const ProjectedBatch& batch,
                                                         const void* grad_grad_m, const void* grad_o,
                                                         void* grad_grad_o, void* grad_m);

}  // namespace wgk
