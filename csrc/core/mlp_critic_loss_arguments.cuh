// What the kernels of mlp_critic_loss are told: the layers and samples, and where numbers lie that go from one kernel
// to the next.
//
// All arrays have a sample's numbers in a row: a panel [width, stride] holds one layer's numbers of a group of samples,
// in shared memory or, for wide layers, in the workspace. What is kept for the weights' derivatives is [kinds * B,
// stride], samples of one kind after those of another, so that the sum over all of them is one product of matrices.
// Strides are multiples of 16 bytes.
#pragma once

#include "elements.cuh"
#include "mlp_critic_loss.h"

namespace wgk {

constexpr int kSweepThreads = 256, kSweepWarps = kSweepThreads / 32;
constexpr int kSumThreads = 128;
// Of the derivative by one layer's weights, a block's.
constexpr int kTileRows = 64, kTileColumns = 32;

template <class T>
struct MlpCudaLayer {
  int64_t in, out;
  const T* weight;  // [out, in]
  const T* bias;    // [out], or null
  T* grad_weight;   // [out, in]
  T* grad_bias;     // [out], or null
  int64_t delta;    // among what is kept, the adjoint of z: [kinds * B, stride of out]
  int64_t factor;   // what the adjoint is multiplied with, the layer's input or its tangent: [kinds * B, stride of in]
  int64_t mask;     // among a group's masks, where the activation bends: [width, out]
  int64_t first_tile;
  T slope;
  bool packed;  // rows of the weights, and of their derivatives, begin at multiples of 16 bytes

  WGK_HOST_DEVICE bool bends() const { return slope != T{1}; }
};

template <class T>
struct MlpArguments {
  NormPenalty penalty;
  int64_t B;
  int depth;
  int kinds;  // 1: mixed samples alone, 3: real and fake ones too, in turns
  bool needs_grads;
  const T* samples[3];  // [B, D] of each kind
  double* norms;        // [B]
  T *value, *wasserstein;
  double* score_sums;  // [groups]
  int64_t groups;
  T* kept;
  // The elements of a row of a panel, and the bytes of all masks of a group.
  int64_t stride, mask_bytes;
  T* panels;       // [groups, 2, width, stride], and after them the masks, [groups, mask_bytes]; null in shared memory
  uint8_t* masks;
  MlpCudaLayer<T> layers[kMostMlpLayersOnCuda];

  WGK_HOST_DEVICE static int64_t padded(int64_t features) { return ceil_div(features, kPackOf<T>) * kPackOf<T>; }
};

}  // namespace wgk
