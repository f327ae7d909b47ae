// One feature of a projected batch, as the CPU kernels of minibatch_discrimination read and add to it.
#pragma once

#include "common.h"

namespace wgk {

enum class DiscriminationPass { value, backward, double_backward };

// Samples lie side by side; those whose o is asked for come first, so that each pair i < j with i among them counts.
// Columns past the samples are zeros.
template <class T>
struct DiscriminatedFeature {
  int64_t rows, B, K;
  int64_t stride;          // columns of each array
  const T* z;              // [K, stride] m of this feature
  const T* u;              // [K, stride] grad_grad_m, for the double backward
  const T* w;              // [stride] grad_o, for both derivatives; 0 for samples past `rows`
  double* sums;            // [stride] o, or grad_grad_o
  double* grads;           // [K, stride] grad_m
};

}  // namespace wgk
