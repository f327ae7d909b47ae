// The penalty on per-sample gradient norms, weight * reduce((||g|| - target)^2), and its two derivatives.
// grad, grad_x, grad_grad_x: [B, D] of dtype, rows dense. norms: [B] double.
// value, grad_value, grad_grad_value: [B] for no reduction, else [1]; double for float64, else float.
#pragma once

#include "common.h"

namespace wgk {

enum class Reduction { none, mean, sum };

struct NormPenalty {
  double target;
  bool one_sided;
  Reduction reduction;
  double weight;
};

void norm_penalty(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                  const void* grad, void* value, double* norms);

// The value, and its derivative for a grad_value of 1, in one sweep.
void norm_penalty_with_grad(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                            const void* grad, void* value, double* norms, void* grad_x);

void norm_penalty_backward(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                           const void* grad_value, const void* grad, const double* norms, void* grad_x);

void norm_penalty_double_backward(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B,
                                  int64_t D, const void* grad_grad_x, const void* grad_value, const void* grad,
                                  const double* norms, void* grad_grad_value, void* grad_x);

// The same of device memory, enqueued on the stream. workspace: as many bytes, which may be none; of any content.
int64_t norm_penalty_cuda_workspace(int64_t B, int64_t D);

CudaStatus norm_penalty_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                             const void* grad, void* value, double* norms, void* workspace);

CudaStatus norm_penalty_backward_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                                      const void* grad_value, const void* grad, const double* norms, void* grad_x);

CudaStatus norm_penalty_double_backward_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B,
                                             int64_t D, const void* grad_grad_x, const void* grad_value,
                                             const void* grad, const double* norms, void* grad_grad_value,
                                             void* grad_x, void* workspace);

}  // namespace wgk
