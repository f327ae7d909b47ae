#include <algorithm>

#include "any_element.cuh"
#include "minibatch_discrimination.h"
#include "reduce.cuh"

// A block goes over all samples j for 32 samples i of one feature. A pair is formed twice, once for each of its samples:
// sums then have a fixed order without memory for the parts of them.
namespace wgk {
namespace {

enum class Pass { value, backward, double_backward };

constexpr int kWarps = 4, kThreads = 32 * kWarps;
constexpr int kRows = 32;                        // samples i: one for each lane of every warp
constexpr int kColumns = 32;                     // samples j of a tile, which the warps share out
constexpr int kPairs = kColumns / kWarps;        // of a thread in a tile
constexpr int kTerms = 16;                       // numbers of a sample that are loaded at a time
constexpr int kStride = kTerms + 1;              // so that the lanes, which read one row each, meet no bank twice

// Of the sums of a thread: one, and where there are gradients as many as these.
template <Pass pass>
constexpr int kPartsStride = pass == Pass::value ? 1 : kStride;

struct Arguments {
  ProjectedBatch batch;
  const void* grad_grad_m;
  const void* grad_o;
  void* sums;  // o or grad_grad_o
  void* grad_m;
  int64_t first, last;  // the samples i
  int64_t row_tiles, chunks;
};

// What a block computes: of this feature, for these samples, these numbers of the gradient.
struct Unit {
  int64_t feature, row, chunk;
  int rows;
  int64_t begin, end;  // the samples j
};

template <class T>
struct PairTile {
  T *rows, *columns;  // [kRows, kStride], [kColumns, kTerms]; zeros past the last number
};

WGK_DEVICE float exponential(float x) { return expf(x); }
WGK_DEVICE double exponential(double x) { return exp(x); }

template <class T>
WGK_DEVICE T signed_by(T difference, T c) {
  return difference == 0 ? T{0} : difference < 0 ? -c : c;
}

WGK_DEVICE Unit unit_of(const Arguments& a) {
  const int64_t block = blockIdx.x, tile = block / a.chunks % a.row_tiles, row = a.first + tile * kRows;
  const int rows = static_cast<int>(min(a.last - row, static_cast<int64_t>(kRows)));
  const bool asked_for = row < a.batch.end && row + rows > a.batch.begin;
  return {block / a.chunks / a.row_tiles, row, block % a.chunks, rows, asked_for ? 0 : a.batch.begin,
          asked_for ? a.batch.B : a.batch.end};
}

// Numbers [first, first + kTerms) of `count` samples of m or grad_grad_m, from the sample-th on.
template <class T>
WGK_DEVICE void load_samples(const ProjectedBatch& batch, const void* from, int64_t feature, int64_t sample, int count,
                             int64_t first, int stride, T* tile) {
  for (int at = static_cast<int>(threadIdx.x); at < kRows * kTerms; at += kThreads) {
    const int row = at / kTerms, k = at % kTerms;
    const int64_t element = ((sample + row) * batch.F + feature) * batch.K + first + k;
    tile[row * stride + k] =
        row < count && first + k < batch.K ? static_cast<T>(load_element(batch.dtype, from, element)) : T{0};
  }
}

template <class T>
WGK_DEVICE void load_chunk(const Arguments& a, const Unit& unit, const void* from, int64_t column, int count,
                           int64_t chunk, const PairTile<T>& tile) {
  load_samples(a.batch, from, unit.feature, unit.row, unit.rows, chunk * kTerms, kStride, tile.rows);
  load_samples(a.batch, from, unit.feature, column, count, chunk * kTerms, kTerms, tile.columns);
}

// The distances of the thread's sample i to its samples j, and the derivatives of them along grad_grad_m.
template <bool has_u, class T>
WGK_DEVICE void pair_distances(const Arguments& a, const Unit& unit, int64_t column, int count, const PairTile<T>& z,
                               const PairTile<T>& u, T (&distances)[kPairs], T (&slopes)[kPairs]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  for (int64_t chunk = 0; chunk < ceil_div(a.batch.K, kTerms); ++chunk) {
    __syncthreads();  // nobody reads the last tile any more
    load_chunk(a, unit, a.batch.m, column, count, chunk, z);
    if constexpr (has_u) {
      load_chunk(a, unit, a.grad_grad_m, column, count, chunk, u);
    }
    __syncthreads();
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      const int at = (warp + n * kWarps) * kTerms;
      T distance = 0, slope = 0;
#pragma unroll
      for (int k = 0; k < kTerms; ++k) {
        const T difference = z.rows[lane * kStride + k] - z.columns[at + k];
        distance += difference < 0 ? -difference : difference;
        if constexpr (has_u) {
          slope += signed_by(difference, u.rows[lane * kStride + k] - u.columns[at + k]);
        }
      }
      distances[n] += distance;
      slopes[n] += slope;
    }
  }
}

// grads += c * sign of the differences, for the numbers that are this block's.
template <class T>
WGK_DEVICE void add_gradients(const Arguments& a, const Unit& unit, int64_t column, int count, const PairTile<T>& z,
                              const T (&c)[kPairs], double (&grads)[kTerms]) {
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  if (a.chunks > 1) {
    __syncthreads();
    load_chunk(a, unit, a.batch.m, column, count, unit.chunk, z);
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < kTerms; ++k) {
    T tile_grad = 0;
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      tile_grad += signed_by(z.rows[lane * kStride + k] - z.columns[(warp + n * kWarps) * kTerms + k], c[n]);
    }
    grads[k] += tile_grad;
  }
}

// grad_o of a sample, 0 of those whose o was not asked for.
template <class T>
WGK_DEVICE T weight_of(const Arguments& a, int64_t feature, int64_t sample) {
  const ProjectedBatch& batch = a.batch;
  return sample < batch.begin || sample >= batch.end
             ? T{0}
             : static_cast<T>(load_element(batch.dtype, a.grad_o, (sample - batch.begin) * batch.F + feature));
}

// Sums over the warps, in their order, of parts [kWarps, kRows, stride], of which `count` are used; finish(row, k, sum).
template <int stride, class Finish>
WGK_DEVICE void finish_rows(const double* parts, int rows, int count, const Finish& finish) {
  for (int at = static_cast<int>(threadIdx.x); at < rows * count; at += kThreads) {
    const int row = at / count, k = at % count;
    double sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) {
      sum += parts[(warp * kRows + row) * stride + k];
    }
    finish(row, k, sum);
  }
}

template <Pass pass, class T>
WGK_DEVICE void write_unit(const Arguments& a, const Unit& unit, double sum, const double (&grads)[kTerms],
                           double* parts) {
  const ProjectedBatch& batch = a.batch;
  constexpr int stride = kPartsStride<pass>;
  double* const own = parts + static_cast<int>(threadIdx.x) * stride;
  if (pass != Pass::backward && unit.chunk == 0) {
    own[0] = sum;
    __syncthreads();
    finish_rows<stride>(parts, unit.rows, 1, [&](int row, int, double total) {
      const int64_t sample = unit.row + row;
      if (sample >= batch.begin && sample < batch.end) {
        store_element(batch.dtype, a.sums, (sample - batch.begin) * batch.F + unit.feature, total);
      }
    });
    __syncthreads();
  }
  if constexpr (pass != Pass::value) {
#pragma unroll
    for (int k = 0; k < kTerms; ++k) {
      own[k] = grads[k];
    }
    __syncthreads();
    const int64_t first = unit.chunk * kTerms;
    const int count = static_cast<int>(min(batch.K - first, static_cast<int64_t>(kTerms)));
    finish_rows<stride>(parts, unit.rows, count, [&](int row, int k, double total) {
      const int64_t element = ((unit.row + row) * batch.F + unit.feature) * batch.K + first + k;
      store_element(batch.dtype, a.grad_m, element, total);
    });
  }
}

template <Pass pass, class T>
__global__ void __launch_bounds__(kThreads, 2) discrimination_kernel(const Arguments a) {
  constexpr bool has_u = pass == Pass::double_backward;
  WGK_SHARED(T, z_memory, kRows * kStride + kColumns * kTerms);
  WGK_SHARED(T, u_memory, has_u ? kRows * kStride + kColumns * kTerms : 1);
  WGK_SHARED(double, parts, kWarps * kRows * kPartsStride<pass>);
  const PairTile<T> z{z_memory, z_memory + kRows * kStride}, u{u_memory, u_memory + (has_u ? kRows * kStride : 0)};
  const Unit unit = unit_of(a);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t sample = unit.row + lane;
  const T weight = pass == Pass::value ? T{0} : weight_of<T>(a, unit.feature, sample);
  double sum = 0, grads[kTerms] = {};
  for (int64_t column = unit.begin; column < unit.end; column += kColumns) {
    const int count = static_cast<int>(min(unit.end - column, static_cast<int64_t>(kColumns)));
    T c[kPairs] = {}, slopes[kPairs] = {}, tile_sum = 0;
    pair_distances<has_u>(a, unit, column, count, z, u, c, slopes);
#pragma unroll
    for (int n = 0; n < kPairs; ++n) {
      const int64_t other = column + warp + n * kWarps;
      const bool counted = other < unit.end && other != sample && lane < unit.rows;
      const T term = counted ? (has_u ? -exponential(-c[n]) * slopes[n] : exponential(-c[n])) : T{0};
      tile_sum += term;
      c[n] = pass == Pass::value || !counted ? T{0} : -term * (weight + weight_of<T>(a, unit.feature, other));
    }
    sum += tile_sum;
    if constexpr (pass != Pass::value) {
      add_gradients(a, unit, column, count, z, c, grads);
    }
  }
  write_unit<pass, T>(a, unit, sum, grads, parts);
}

template <Pass pass>
CudaStatus discriminate(CudaStream stream, const ProjectedBatch& batch, const void* grad_grad_m, const void* grad_o,
                        void* sums, void* grad_m) {
  const int64_t first = pass == Pass::value ? batch.begin : 0, last = pass == Pass::value ? batch.end : batch.B;
  const int64_t tiles = ceil_div(last - first, kRows);
  const int64_t chunks = pass == Pass::value ? 1 : std::max<int64_t>(1, ceil_div(batch.K, kTerms));
  const Arguments a{batch, grad_grad_m, grad_o, sums, grad_m, first, last, tiles, chunks};
  const int64_t blocks = batch.F * tiles * chunks;
  if (blocks == 0) {
    return 0;
  }
  const auto launch = [&](auto kernel) {
    return WGK_LAUNCH(kernel, dim3(static_cast<unsigned>(blocks)), dim3(kThreads), 0, stream, a);
  };
  return batch.dtype == DType::float64 ? launch(discrimination_kernel<pass, double>)
                                       : launch(discrimination_kernel<pass, float>);
}

}  // namespace

CudaStatus minibatch_discrimination_cuda(CudaStream stream, const ProjectedBatch& batch, void* o) {
  return discriminate<Pass::value>(stream, batch, nullptr, nullptr, o, nullptr);
}

CudaStatus minibatch_discrimination_backward_cuda(CudaStream stream, const ProjectedBatch& batch, const void* grad_o,
                                                  void* grad_m) {
  return discriminate<Pass::backward>(stream, batch, nullptr, grad_o, nullptr, grad_m);
}

CudaStatus minibatch_discrimination_double_backward_cuda(CudaStream stream, const ProjectedBatch& batch,
                                                         const void* grad_grad_m, const void* grad_o,
                                                         void* grad_grad_o, void* grad_m) {
  return discriminate<Pass::double_backward>(stream, batch, grad_grad_m, grad_o, grad_grad_o, grad_m);
}

}  // namespace wgk
