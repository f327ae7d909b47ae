// The gradients of the parameters of group_norm: sums by channel over samples and positions, in chunks of samples or of
// positions, which are added up in order by a second kernel.
#pragma once

#include "group_norm_rows.cuh"

namespace wgk {

constexpr int kColumnsOfBlock = 32;
constexpr int kRowsOfBlock = kNormThreads / kColumnsOfBlock;
constexpr int64_t kMostChunks = 64;

// What is summed of one element: of a backward pass g xhat and g, else g S u, for the gradient of the weight alone.
template <class T, NormPass pass>
struct ParamTerms {
  GroupNormArguments<T> args;

  WGK_DEVICE void add(int64_t row, int64_t at, double& by_weight, double& by_bias) const {
    const double* const means = args.means + row * kNormMeans;
    const double r = args.rstd[row], g = widen(args.g[at]);
    const double xhat = static_cast<double>(widen(args.x[at]) - args.mean[row]) * r - means[0];
    if constexpr (pass == NormPass::backward) {
      by_weight += g * xhat;
      by_bias += g;
    } else {
      by_weight += g * r * (widen(args.u[at]) - means[1] - xhat * means[2]);
    }
  }
};

// Channels side by side in memory: [B * positions, C]. parts: [2, chunks, C].
template <class T, NormPass pass>
__global__ void __launch_bounds__(kNormThreads, 2)
    group_norm_columns_kernel(ParamTerms<T, pass> terms, int64_t chunks, int64_t chunk_size, double* parts) {
  WGK_SHARED(double, sums, 2 * kNormThreads);
  const GroupNorm& norm = terms.args.norm;
  const int64_t blocks = ceil_div(norm.C, kColumnsOfBlock), chunk = blockIdx.x / blocks;
  const int thread = static_cast<int>(threadIdx.x), column = thread % kColumnsOfBlock;
  const int64_t c = (blockIdx.x - chunk * blocks) * kColumnsOfBlock + column;
  const int64_t end = min((chunk + 1) * chunk_size, norm.B * norm.S);
  double by_weight = 0, by_bias = 0;
  if (c < norm.C) {
    const int64_t group = c / norm.channels();
    for (int64_t i = chunk * chunk_size + thread / kColumnsOfBlock; i < end; i += kRowsOfBlock) {
      terms.add(i / norm.S * norm.G + group, i * norm.C + c, by_weight, by_bias);
    }
  }
  sums[thread] = by_weight;
  sums[kNormThreads + thread] = by_bias;
  __syncthreads();
  if (thread < 2 * kColumnsOfBlock && c < norm.C) {
    const int which = thread / kColumnsOfBlock;
    double sum = 0;
    for (int k = 0; k < kRowsOfBlock; ++k) {
      sum += sums[which * kNormThreads + k * kColumnsOfBlock + column];
    }
    parts[(which * chunks + chunk) * norm.C + c] = sum;
  }
}

// Channels one after another in memory: [B, C, S]. parts: [2, chunks, C].
template <class T, NormPass pass>
__global__ void __launch_bounds__(kNormThreads, 2)
    group_norm_planes_kernel(ParamTerms<T, pass> terms, int64_t chunks, int64_t chunk_size, double* parts) {
  const GroupNorm& norm = terms.args.norm;
  const int64_t chunk = blockIdx.x / norm.C, c = blockIdx.x - chunk * norm.C, group = c / norm.channels();
  const int64_t end = min((chunk + 1) * chunk_size, norm.B);
  double by_weight = 0, by_bias = 0;
  for (int64_t b = chunk * chunk_size; b < end; ++b) {
    for (int64_t s = threadIdx.x; s < norm.S; s += kNormThreads) {
      terms.add(b * norm.G + group, (b * norm.C + c) * norm.S + s, by_weight, by_bias);
    }
  }
  by_weight = block_sum<kNormThreads>(by_weight);
  __syncthreads();
  by_bias = block_sum<kNormThreads>(by_bias);
  if (threadIdx.x == 0) {
    parts[chunk * norm.C + c] = by_weight;
    parts[(chunks + chunk) * norm.C + c] = by_bias;
  }
}

// by_weight, by_bias: [C], null where they are not wanted.
template <class Number>
__global__ void __launch_bounds__(kNormThreads)
    group_norm_params_kernel(int64_t C, int64_t chunks, const double* parts, Number* by_weight, Number* by_bias) {
  const int64_t c = static_cast<int64_t>(blockIdx.x) * kNormThreads + threadIdx.x;
  if (c >= C) {
    return;
  }
  for (int which = 0; which < 2; ++which) {
    Number* const to = which == 0 ? by_weight : by_bias;
    double sum = 0;
    for (int64_t chunk = 0; to != nullptr && chunk < chunks; ++chunk) {
      sum += parts[(which * chunks + chunk) * C + c];
    }
    if (to != nullptr) {
      to[c] = static_cast<Number>(sum);
    }
  }
}

// How the sums by channel are cut: over positions of all samples, or over samples.
struct ParamChunks {
  bool columns;
  int64_t size, count;

  explicit ParamChunks(const GroupNorm& norm) : columns(norm.channels_last || norm.S == 1) {
    const int64_t rows = columns ? norm.B * norm.S : norm.B;
    size = std::max<int64_t>(columns ? 4 * kRowsOfBlock : 1, ceil_div(rows, kMostChunks));
    count = ceil_div(rows, size);
  }
};

}  // namespace wgk
