// How much the samples of a group differ: the standard deviation of each number over the group, averaged over numbers.
#pragma once

#include "common.h"

namespace wgk {

// x: [G, M, F, P] of dtype, dense: M groups of G samples, of which each has F blocks of P numbers.
struct SampleGroups {
  DType dtype;
  int64_t G, M, F, P;
  const void* x;

  WGK_HOST_DEVICE int64_t rows() const { return M * F; }
};

constexpr double kVarianceFloor = 1e-8;  // added to a variance, whose root has no derivative at 0

// value[m, f] = mean over p of sqrt(var over g of x[g, m, f, p] + kVarianceFloor).
// value, grad_value, grad_grad_value: [M, F]; grad_x, grad_grad_x: as x; all of dtype.
void minibatch_stddev(Isa isa, ParallelFor run, const SampleGroups& groups, void* value);
void minibatch_stddev_backward(Isa isa, ParallelFor run, const SampleGroups& groups, const void* grad_value,
                               void* grad_x);
void minibatch_stddev_double_backward(Isa isa, ParallelFor run, const SampleGroups& groups, const void* grad_grad_x,
                                      const void* grad_value, void* grad_grad_value, void* grad_x);

// The same of device memory: enqueued on the stream. workspace: of as many bytes, for the first and the last.
int64_t minibatch_stddev_cuda_workspace(const SampleGroups& groups);
CudaStatus minibatch_stddev_cuda(CudaStream stream, const SampleGroups& groups, void* value, void* workspace);
CudaStatus minibatch_stddev_backward_cuda(CudaStream stream, const SampleGroups& groups, const void* grad_value,
                                          void* grad_x);
CudaStatus minibatch_stddev_double_backward_cuda(CudaStream stream, const SampleGroups& groups,
                                                 const void* grad_grad_x, const void* grad_value,
                                                 void* grad_grad_value, void* grad_x, void* workspace);

}  // namespace wgk
