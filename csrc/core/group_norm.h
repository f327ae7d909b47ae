// Normalisation of groups of n = C / G * S numbers, xhat = (x - mean) * rstd, y = weight * xhat + bias, and its two
// derivatives. x, y, grad_y, grad_x, grad_grad_x, grad_grad_y: [B, C, S] of dtype. mean, rstd: [B, G]; weight, bias and
// their gradients: [C]; these are double for float64, else float. Null are parameters that are not there, gradients of
// parameters and grad_grad_y where they are not wanted.
// The formulas are in wgan_kernels/reference/group_norm.py.
#pragma once

#include "common.h"

namespace wgk {

struct GroupNorm {
  int64_t B, C, S, G;
  bool channels_last;  // in memory [B, S, C]

  WGK_HOST_DEVICE int64_t channels() const { return G == 0 ? 0 : C / G; }  // of a group
  WGK_HOST_DEVICE int64_t group_size() const { return channels() * S; }
};

// Pointers to what a pass reads and writes.
struct GroupNormForward {
  const void *x, *weight, *bias;
  void *y, *mean, *rstd;
};

struct GroupNormBackward {
  const void *grad_y, *x, *weight, *mean, *rstd;
  void *grad_x, *grad_weight, *grad_bias;
};

struct GroupNormDoubleBackward {
  const void *grad_grad_x, *grad_grad_weight, *grad_grad_bias, *grad_y, *x, *weight, *mean, *rstd;
  void *grad_grad_y, *grad_x, *grad_weight;
};

void group_norm(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm, double eps, const GroupNormForward& at);
void group_norm_backward(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm, const GroupNormBackward& at);
void group_norm_double_backward(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm,
                                const GroupNormDoubleBackward& at);

// The same of device memory, enqueued on the stream. workspace: as many bytes, which may be none; of any content.
int64_t group_norm_cuda_workspace(const GroupNorm& norm);

CudaStatus group_norm_cuda(CudaStream stream, DType dtype, const GroupNorm& norm, double eps,
                           const GroupNormForward& at, void* workspace);
CudaStatus group_norm_backward_cuda(CudaStream stream, DType dtype, const GroupNorm& norm, const GroupNormBackward& at,
                                    void* workspace);
CudaStatus group_norm_double_backward_cuda(CudaStream stream, DType dtype, const GroupNorm& norm,
                                           const GroupNormDoubleBackward& at, void* workspace);

}  // namespace wgk
