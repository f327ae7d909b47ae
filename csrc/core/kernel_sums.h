// Sums of kernel functions over the pairs of two sets of points, and their first and second derivatives.
//
// x: [B, N, D], y: [B, M, D] of dtype, dense: B problems of one size. Three blocks of pairs: xx and yy, both without
// the pairs of a point with itself unless `diagonal`, and xy. With C components,
//   sums[b, block, c] = sum over the pairs (i, j) of the block of k_c(s_ij; theta_c),
// of which a call computes the share of the rows [begin, end) of the stacked points [x; y] (pair_schedule.h); the
// shares of ranges that make up [0, N + M) add up to the whole.
#pragma once

#include "kernel_pairs.h"

namespace wgk {

struct PointPairs {
  int64_t B, N, M, D;
  DType dtype;
  const void* x;
  const void* y;
  int64_t begin, end;
  bool diagonal;
};

// Where results go; null leaves one out. grad_x: [B, N, D], grad_y: [B, M, D] of dtype.
struct KernelGradients {
  DType dtype;
  void* x;
  void* y;

  bool any() const { return x != nullptr || y != nullptr; }
};

// sums: [B, 3, C]. theta_sums: [B, 3, C], the derivatives of sums by each component's parameter, or null.
// weights: [B, 3, C], needed for the gradients by points, those of sum(weights * sums).
void kernel_sums(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture, const double* weights, double* sums,
                 double* theta_sums, const KernelGradients& gradients);

// The derivatives of everything kernel_sums computes along directions of the points and the parameters:
// along_x: [B, N, D], along_y: [B, M, D] of dtype, or null for zeros; mixture.along_thetas.
void kernel_sums_tangent(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture, const void* along_x, const void* along_y,
                         const double* weights, double* sums, double* theta_sums, const KernelGradients& gradients);

// The same on a GPU: all pointers but mixture.kinds and mixture.shapes are to device memory, mixture.C is at most
// kMaxComponents.
// mode: gradients if any of those by points is wanted, tangents for kernel_sums_tangent. Pointers do not matter.
int64_t kernel_sums_cuda_workspace(const PointPairs& pairs, int64_t C, PairMode mode);  // bytes, aligned to 256

// value: [B], sum(weights * sums), double for float64 points, else float; or null. Then weights may be null too,
// unless there are gradients.
CudaStatus kernel_sums_cuda(CudaStream stream, MatmulPrecision precision, const PointPairs& pairs,
                            const KernelMixture& mixture, const double* weights, void* value, double* sums,
                            double* theta_sums, const KernelGradients& gradients, void* workspace);

CudaStatus kernel_sums_tangent_cuda(CudaStream stream, MatmulPrecision precision, const PointPairs& pairs,
                                    const KernelMixture& mixture, const void* along_x, const void* along_y,
                                    const double* weights, double* sums, double* theta_sums,
                                    const KernelGradients& gradients, void* workspace);

}  // namespace wgk
