// Sums over the rows of [B, D] arrays in two stages, in an order that depends on D alone: a row has the same sum
// wherever in the batch and in memory it lies. Where rows are added up too, that order depends on B and D alone.
//
// Sums are kept in float64. The square of a float32 needs its range, products of two float32 are exact in it, and on
// data-centre GPUs it costs less time than the memory takes; compensated float32 would be the choice for others.
#pragma once

#include <algorithm>

#include "reduce.cuh"

namespace wgk {

constexpr int kRowThreads = 256;
constexpr int kPerThread = 16;                                      // elements
constexpr int64_t kShortRow = 32 * kPerThread;                      // up to this a row is one warp's
constexpr int64_t kRowChunk = int64_t{kRowThreads} * kPerThread;    // up to this it is one block's

inline int64_t row_chunks(int64_t D) { return D <= kRowChunk ? 1 : ceil_div(D, kRowChunk); }

// Lanes of the second stage that share a row.
inline int finish_lanes(int64_t D) { return row_chunks(D) > 8 ? 32 : 1; }

// Blocks of the second stage where rows are added up: one, whose threads take up to 8 rows, or as many as a last block
// has threads.
inline int64_t finish_blocks(int64_t B, int64_t D) {
  return std::min<int64_t>(kFinishThreads, std::max<int64_t>(1, ceil_div(B * finish_lanes(D), 8 * kFinishThreads)));
}

// Doubles that sum_rows needs.
inline int64_t row_sums_workspace(int64_t B, int64_t D) { return B * row_chunks(D) + finish_blocks(B, D); }

// V elements from j on of the n that begin at p, with zeros for those past the end.
template <int V, bool aligned, class T>
WGK_DEVICE Pack<T, V> load_part(const T* p, int j, int n) {
  if (aligned && j + V <= n) {
    return load_pack<V>(p + j);
  }
  Pack<T, V> pack;
#pragma unroll
  for (int e = 0; e < V; ++e) {
    pack.set(e, j + e < n ? p[j + e] : T{});
  }
  return pack;
}

// A thread's part of the sum of x[j]^2, or of u[j] * x[j], over n elements that `threads` threads share.
template <class T, bool has_u, bool aligned>
WGK_DEVICE double sum_part(const T* u, const T* x, int n, int thread, int threads) {
  constexpr int V = kPackOf<T>, kPacks = kPerThread / V;
  Pack<T, V> us[kPacks], xs[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int j = (k * threads + thread) * V;
    xs[k] = load_part<V, aligned>(x, j, n);
    if constexpr (has_u) {
      us[k] = load_part<V, aligned>(u, j, n);
    }
  }
  double sum = 0;
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const double x_e = widen(xs[k].get(e));
      sum += (has_u ? static_cast<double>(widen(us[k].get(e))) : x_e) * x_e;
    }
  }
  return sum;
}

// The first stage: done(row, chunk, sum) is called once for each chunk of each row. x, u: [B, D].
template <class T, bool has_u, bool aligned, bool is_short, class Done>
__global__ void __launch_bounds__(kRowThreads)
    row_sums_kernel(int64_t B, int64_t D, int64_t chunks, const T* u, const T* x, Done done) {
  if constexpr (is_short) {
    const int64_t row = static_cast<int64_t>(blockIdx.x) * (kRowThreads / 32) + threadIdx.x / 32;
    if (row >= B) {
      return;
    }
    const int64_t at = row * D;
    const int lane = static_cast<int>(threadIdx.x) % 32;
    const double sum = warp_sum(sum_part<T, has_u, aligned>(has_u ? u + at : u, x + at, static_cast<int>(D), lane, 32));
    if (lane == 0) {
      done(row, 0, sum);
    }
  } else {
    const int64_t row = blockIdx.x / chunks, chunk = blockIdx.x - row * chunks, begin = chunk * kRowChunk;
    const int n = static_cast<int>(min(kRowChunk, D - begin));
    const int64_t at = row * D + begin;
    const int thread = static_cast<int>(threadIdx.x);
    const double sum = block_sum<kRowThreads>(
        sum_part<T, has_u, aligned>(has_u ? u + at : u, x + at, n, thread, kRowThreads));
    if (thread == 0) {
      done(row, chunk, sum);
    }
  }
}

struct StoreSum {
  double* sums;  // [B, chunks]
  int64_t chunks;
  WGK_DEVICE void operator()(int64_t row, int64_t chunk, double sum) const { sums[row * chunks + chunk] = sum; }
};

// In place of the second stage where a row has one chunk and no sum goes over rows.
template <class Finish>
struct FinishRow {
  Finish finish;
  WGK_DEVICE void operator()(int64_t row, int64_t, double sum) const { finish.row(row, sum); }
};

// The second stage: finish.row(row, sum) for each row; if `all`, of what that returned finish.all(the sum), or with
// several blocks parts[block]. A row is one thread's, or with many chunks one warp's. sums: [B, chunks].
template <class Finish>
__global__ void __launch_bounds__(kFinishThreads)
    finish_rows_kernel(int64_t B, int64_t chunks, int lanes, bool all, const double* sums, double* parts,
                       Finish finish) {
  const int lane = static_cast<int>(threadIdx.x) % lanes;
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x) / lanes;
  double terms = 0;
  for (int64_t row = first; row < B; row += static_cast<int64_t>(gridDim.x) * kFinishThreads / lanes) {
    double sum = 0;
    for (int64_t chunk = lane; chunk < chunks; chunk += lanes) {
      sum += sums[row * chunks + chunk];
    }
    if (lanes == 32) {
      sum = warp_sum(sum);
    }
    if (lane == 0) {
      terms += finish.row(row, sum);
    }
  }
  if (all) {
    terms = block_sum<kFinishThreads>(terms);
    if (threadIdx.x == 0) {
      gridDim.x == 1 ? finish.all(terms) : static_cast<void>(parts[blockIdx.x] = terms);
    }
  }
}

// finish.all(sum) of `count` parts, one for a thread at most.
template <class Finish>
__global__ void __launch_bounds__(kFinishThreads) finish_all_kernel(int count, const double* parts, Finish finish) {
  const int thread = static_cast<int>(threadIdx.x);
  const double sum = block_sum<kFinishThreads>(thread < count ? parts[thread] : 0.0);
  if (thread == 0) {
    finish.all(sum);
  }
}

template <class T, bool has_u, class Done>
CudaStatus launch_row_sums(CudaStream stream, int64_t B, int64_t D, const T* u, const T* x, const Done& done) {
  const bool aligned = D % kPackOf<T> == 0 && pack_offset(x) == 0 && (!has_u || pack_offset(u) == 0);
  const int64_t chunks = row_chunks(D), blocks = D <= kShortRow ? ceil_div(B, kRowThreads / 32) : B * chunks;
  const auto launch = [&](auto kernel) {
    return WGK_LAUNCH(kernel, static_cast<unsigned>(blocks), kRowThreads, 0, stream, B, D, chunks, u, x, done);
  };
  if (D <= kShortRow) {
    return aligned ? launch(row_sums_kernel<T, has_u, true, true, Done>)
                   : launch(row_sums_kernel<T, has_u, false, true, Done>);
  }
  return aligned ? launch(row_sums_kernel<T, has_u, true, false, Done>)
                 : launch(row_sums_kernel<T, has_u, false, false, Done>);
}

template <class Finish>
CudaStatus launch_finish(CudaStream stream, int64_t B, int64_t D, bool all, double* sums, const Finish& finish) {
  const int64_t chunks = row_chunks(D), threads = B * finish_lanes(D);
  const auto blocks = static_cast<unsigned>(all ? finish_blocks(B, D) : ceil_div(threads, kFinishThreads));
  double* const parts = sums + B * chunks;
  const CudaStatus status = WGK_LAUNCH(finish_rows_kernel<Finish>, blocks, kFinishThreads, 0, stream, B, chunks,
                                       finish_lanes(D), all, sums, parts, finish);
  return status != 0 || !all || blocks == 1 ? status
                                            : WGK_LAUNCH(finish_all_kernel<Finish>, 1, kFinishThreads, 0, stream,
                                                         static_cast<int>(blocks), parts, finish);
}

// Enqueues both stages; `all`: whether there is a sum over the rows. sums: workspace of row_sums_workspace(B, D).
template <class T, bool has_u, class Finish>
CudaStatus sum_rows(CudaStream stream, int64_t B, int64_t D, const T* u, const T* x, bool all, double* sums,
                    const Finish& finish) {
  const int64_t chunks = row_chunks(D);
  if (B > 0) {
    if (chunks == 1 && !all) {
      return launch_row_sums<T, has_u>(stream, B, D, u, x, FinishRow<Finish>{finish});
    }
    const CudaStatus status = launch_row_sums<T, has_u>(stream, B, D, u, x, StoreSum{sums, chunks});
    if (status != 0) {
      return status;
    }
  } else if (!all) {
    return 0;
  }
  return launch_finish(stream, B, D, all, sums, finish);
}

}  // namespace wgk
