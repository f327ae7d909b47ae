// Kernel matrices times vectors, out = K v with K_ij = sum_c weights[c] * k_c(s_ij), never storing K. s_ij is what k_c is
// a function of, |x_i - y_j|^2 or x_i . y_j.
// x: [B, N, D], y: [B, M, D] of dtype; v: [B, M, P] and out: [B, end - begin, P], double for float64, else float; dense.
// `term` puts a derivative of k in place of k. Without `diagonal`, the pairs (i, i) are left out.
#pragma once

#include "kernel_pairs.h"

namespace wgk {

struct KernelProduct {
  int64_t B, N, M, D, P;
  DType dtype;
  const void* x;
  const void* y;
  const void* v;
  int64_t begin, end;  // rows of x
  bool diagonal;
  KernelTerm term;
};

void kernel_matvec(Isa isa, ParallelFor run, const KernelProduct& product, const KernelMixture& mixture,
                   const double* weights, void* out);

// The same on a GPU: all pointers but mixture.kinds and mixture.shapes are to device memory, mixture.C is at most
// kMaxComponents.
int64_t kernel_matvec_cuda_workspace(const KernelProduct& product);  // bytes, aligned to 256; pointers do not matter
CudaStatus kernel_matvec_cuda(CudaStream stream, MatmulPrecision precision, const KernelProduct& product,
                              const KernelMixture& mixture, const double* weights, void* out, void* workspace);

}  // namespace wgk
