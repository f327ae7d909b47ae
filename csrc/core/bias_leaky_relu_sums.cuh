// grad_x = grad_y * dy/dx of [B, C, S], and its sums over all but the channels: parts of them first, which another kernel
// adds up. Their order depends on B, C and S alone, and of short rows on whether memory lies on multiples of 16 bytes.
#pragma once

#include <cmath>

#include "bias_leaky_relu.h"
#include "row_sums.cuh"

namespace wgk {

template <class T>
struct Rectifier {
  Wide<T> gain, low, bound;
  bool clamped;

  WGK_DEVICE explicit Rectifier(const BiasLeakyRelu& of)
      : gain(static_cast<Wide<T>>(of.gain)),
        low(static_cast<Wide<T>>(of.gain * of.negative_slope)),
        bound(widen(narrow<T>(static_cast<Wide<T>>(of.clamp)))),  // what y is compared with later has been stored
        clamped(bound < INFINITY) {}

  WGK_DEVICE Wide<T> rectified(Wide<T> z) const {
    const Wide<T> y = z * (z > 0 ? gain : low);
    return !clamped ? y : y < -bound ? -bound : y > bound ? bound : y;
  }

  // t * dy/dz
  WGK_DEVICE Wide<T> scaled(Wide<T> t, Wide<T> y) const {
    const Wide<T> out = t * (y > 0 ? gain : low);
    return !clamped || (y < bound && y > -bound) ? out : Wide<T>{0};
  }
};

// From here on the elements of a channel are a row of a block's, or a warp's; fewer are summed with those of other
// samples, as columns.
constexpr int64_t kChannelRow = 128;
constexpr int kColumnThreads = 256;
constexpr int kColumnRows = 16;  // a thread's

// Threads side by side over [rows, columns], V columns each.
inline int column_lanes(int64_t columns, int V) {
  int lanes = 32;
  while (lanes > 1 && columns <= lanes / 2 * V) {
    lanes /= 2;
  }
  return lanes;
}

// How the parts lie: [outer, C, inner].
struct ChannelParts {
  int64_t outer, inner;

  // The rows of a chunk do not depend on how many elements are loaded at once.
  ChannelParts(int64_t B, int64_t C, int64_t S)
      : outer(S >= kChannelRow ? B : ceil_div(B, rows_of_chunk(C * S))), inner(S >= kChannelRow ? row_chunks(S) : S) {}

  static int64_t rows_of_chunk(int64_t columns) { return kColumnThreads / column_lanes(columns, 1) * kColumnRows; }
};

template <class T, int V, bool aligned>
WGK_DEVICE void store_part(T* p, int j, int n, const Pack<T, V>& pack) {
  if (aligned && j + V <= n) {
    return store_pack<V>(p + j, pack);
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    if (j + e < n) {
      p[j + e] = pack.get(e);
    }
  }
}

// A thread's part of n elements that `threads` threads share; returns its sum.
template <class T, bool aligned>
WGK_DEVICE double scale_part(const Rectifier<T>& by, const T* grad_y, const T* y, T* grad_x, int n, int thread,
                             int threads) {
  constexpr int V = kPackOf<T>, kPacks = kPerThread / V;
  Pack<T, V> gs[kPacks], ys[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int j = (k * threads + thread) * V;
    gs[k] = load_part<V, aligned>(grad_y, j, n);
    ys[k] = load_part<V, aligned>(y, j, n);
  }
  double sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    Pack<T, V> out;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const Wide<T> scaled = by.scaled(widen(gs[k].get(e)), widen(ys[k].get(e)));
      sum += scaled;
      out.set(e, narrow<T>(scaled));
    }
    store_part<T, V, aligned>(grad_x, (k * threads + thread) * V, n, out);
  }
  return sum;
}

// rows: B * C, of S elements; parts: [rows, chunks].
// At least two blocks on a multiprocessor: to fit more of them ptxas would spill.
template <class T, bool aligned, bool is_short>
__global__ void __launch_bounds__(kRowThreads, 2)
    scale_rows_kernel(int64_t rows, int64_t S, int64_t chunks, BiasLeakyRelu of, const T* grad_y, const T* y, T* grad_x,
                      double* parts) {
  const Rectifier<T> by(of);
  if constexpr (is_short) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * (kRowThreads / 32) + threadIdx.x / 32, at = row * S;
    if (row >= rows) {
      return;
    }
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const double sum =
        warp_sum(scale_part<T, aligned>(by, grad_y + at, y + at, grad_x + at, static_cast<int>(S), lane, 32));
    if (lane == 0) {
      parts[row] = sum;
    }
  } else {
    const int64_t row = blockIdx.x / chunks, begin = (blockIdx.x - row * chunks) * kRowChunk, at = row * S + begin;
    const int n = static_cast<int>(min(kRowChunk, S - begin)), thread = static_cast<int>(threadIdx.x);
    const double sum = block_sum<kRowThreads>(
        scale_part<T, aligned>(by, grad_y + at, y + at, grad_x + at, n, thread, kRowThreads));
    if (thread == 0) {
      parts[blockIdx.x] = sum;
    }
  }
}

// grad_y, y, grad_x: [B, columns]; parts: [chunks, columns]. `lanes` threads side by side, each with V columns; a chunk
// has `chunk_rows` rows.
template <class T, int V>
__global__ void __launch_bounds__(kColumnThreads)
    scale_columns_kernel(int64_t B, int64_t columns, int lanes, int chunk_rows, BiasLeakyRelu of, const T* grad_y,
                         const T* y, T* grad_x, double* parts) {
  WGK_SHARED(double, shared, kColumnThreads * V);
  const Rectifier<T> by(of);
  const int thread = static_cast<int>(threadIdx.x), lane = thread % lanes, rows = kColumnThreads / lanes;
  const int64_t tiles = ceil_div(columns, static_cast<int64_t>(lanes) * V), chunk = blockIdx.x / tiles;
  const int64_t column = ((blockIdx.x - chunk * tiles) * lanes + lane) * V;
  const int64_t end = min(B, (chunk + 1) * chunk_rows);
  double sums[V] = {};
  if (column < columns) {
#pragma unroll 4
    for (int64_t row = chunk * chunk_rows + thread / lanes; row < end; row += rows) {
      const int64_t at = row * columns + column;
      const Pack<T, V> gs = load_pack<V>(grad_y + at), ys = load_pack<V>(y + at);
      Pack<T, V> out;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        const Wide<T> scaled = by.scaled(widen(gs.get(e)), widen(ys.get(e)));
        sums[e] += scaled;
        out.set(e, narrow<T>(scaled));
      }
      store_pack<V>(grad_x + at, out);
    }
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    shared[thread * V + e] = sums[e];
  }
  __syncthreads();
  for (int j = thread; j < lanes * V; j += kColumnThreads) {
    const int64_t at = (blockIdx.x - chunk * tiles) * lanes * V + j;
    double sum = 0;
    for (int row = 0; row < rows; ++row) {
      sum += shared[row * lanes * V + j];
    }
    if (at < columns) {
      parts[chunk * columns + at] = sum;
    }
  }
}

// grad_bias[c]: the sum of parts, [outer, C, inner], each channel one warp's.
template <class Number>
__global__ void __launch_bounds__(kFinishThreads)
    add_parts_kernel(int64_t C, int64_t outer, int64_t inner, const double* parts, Number* grad_bias) {
  const int64_t channel = static_cast<int64_t>(blockIdx.x) * (kFinishThreads / 32) + threadIdx.x / 32;
  if (channel >= C) {
    return;
  }
  const int lane = static_cast<int>(threadIdx.x) % 32;
  double sum = 0;
  for (int64_t k = lane; k < outer * inner; k += 32) {
    const int64_t o = k / inner;
    sum += parts[(o * C + channel) * inner + (k - o * inner)];
  }
  sum = warp_sum(sum);
  if (lane == 0) {
    grad_bias[channel] = static_cast<Number>(sum);
  }
}

template <class T>
CudaStatus scale_rows(CudaStream stream, const BiasLeakyRelu& of, int64_t rows, int64_t S, const T* grad_y, const T* y,
                      T* grad_x, double* parts) {
  const bool aligned =
      S % kPackOf<T> == 0 && pack_offset(grad_y) == 0 && pack_offset(y) == 0 && pack_offset(grad_x) == 0;
  const int64_t chunks = row_chunks(S), blocks = S <= kShortRow ? ceil_div(rows, kRowThreads / 32) : rows * chunks;
  const auto launch = [&](auto kernel) {
    return WGK_LAUNCH(kernel, static_cast<unsigned>(blocks), kRowThreads, 0, stream, rows, S, chunks, of, grad_y, y,
                      grad_x, parts);
  };
  if (S <= kShortRow) {
    return aligned ? launch(scale_rows_kernel<T, true, true>) : launch(scale_rows_kernel<T, false, true>);
  }
  return aligned ? launch(scale_rows_kernel<T, true, false>) : launch(scale_rows_kernel<T, false, false>);
}

template <class T, int V>
CudaStatus scale_columns(CudaStream stream, const BiasLeakyRelu& of, int64_t B, int64_t columns, const T* grad_y,
                         const T* y, T* grad_x, double* parts) {
  const int lanes = column_lanes(columns, V), chunk_rows = static_cast<int>(ChannelParts::rows_of_chunk(columns));
  const int64_t tiles = ceil_div(columns, static_cast<int64_t>(lanes) * V), blocks = ceil_div(B, chunk_rows) * tiles;
  return WGK_LAUNCH((scale_columns_kernel<T, V>), static_cast<unsigned>(blocks), kColumnThreads, 0, stream, B, columns,
                    lanes, chunk_rows, of, grad_y, y, grad_x, parts);
}

// Enqueues both stages. parts: [ChannelParts], of any content.
template <class T>
CudaStatus scale_and_sum(CudaStream stream, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S, const T* grad_y,
                         const T* y, T* grad_x, Wide<T>* grad_bias, double* parts) {
  if (C == 0) {
    return 0;
  }
  if (B * S > 0) {
    const auto is_aligned = [](const T* p) { return pack_offset(p) == 0; };
    const bool aligned = C * S % kPackOf<T> == 0 && is_aligned(grad_y) && is_aligned(y) && is_aligned(grad_x);
    const CudaStatus status = S >= kChannelRow ? scale_rows(stream, of, B * C, S, grad_y, y, grad_x, parts)
                              : aligned
                                  ? scale_columns<T, kPackOf<T>>(stream, of, B, C * S, grad_y, y, grad_x, parts)
                                  : scale_columns<T, 1>(stream, of, B, C * S, grad_y, y, grad_x, parts);
    if (status != 0) {
      return status;
    }
  }
  const ChannelParts of_channels(B, C, S);
  return WGK_LAUNCH((add_parts_kernel<Wide<T>>), static_cast<unsigned>(ceil_div(C, kFinishThreads / 32)),
                    kFinishThreads, 0, stream, C, of_channels.outer, of_channels.inner, parts, grad_bias);
}

}  // namespace wgk
