// Sums over a warp and over a block, in an order that never changes.
#pragma once

#include "elements.cuh"

namespace wgk {

constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kFinishThreads = 512;  // of a block in a kernel that puts together what others left

// In every lane.
template <class Number>
WGK_DEVICE Number warp_sum(Number x) {
#pragma unroll
  for (int step = 16; step > 0; step /= 2) {
    x += __shfl_xor_sync(kAllLanes, x, step);
  }
  return x;
}

// In the threads of the first warp, of all kThreads threads of the block. A barrier has to come before the next call.
template <int kThreads, class Number>
WGK_DEVICE Number block_sum(Number x) {
  constexpr int kWarps = kThreads / 32;
  static_assert(kThreads % 32 == 0 && kWarps <= 32);
  WGK_SHARED(Number, parts, kWarps);
  x = warp_sum(x);
  if (threadIdx.x % 32 == 0) {
    parts[threadIdx.x / 32] = x;
  }
  __syncthreads();
  if (threadIdx.x < 32) {
    x = warp_sum(threadIdx.x < kWarps ? parts[threadIdx.x] : Number{0});
  }
  return x;
}

}  // namespace wgk
