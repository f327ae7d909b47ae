// What a block of threads of the pair kernels does with one tile of points against another: it reads them into shared
// memory, multiplies them on tensor cores, and evaluates kernel functions on what its lanes hold.
#pragma once

#include "any_element.cuh"
#include "launch.h"
#include "mma.cuh"
#include "pair_points.h"

#include <cstring>
#include <type_traits>

#define WGK_ISA cuda
#define WGK_INLINE WGK_DEVICE

namespace wgk {
namespace cuda {

#ifdef WGK_SIMT
inline float exp2_of_negative(float t) { return t < -126 ? 0 : std::exp2(t); }
inline float reciprocal(float v) { return 1 / v; }
inline double reciprocal(double v) { return 1 / v; }
#else
// 2^t for t <= 0, 0 below the smallest normal number, within 2 units in the last place.
WGK_INLINE float exp2_of_negative(float t) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  return power;
}
// Within 1 unit in the last place, and without the calls that a division makes for numbers that are not normal.
WGK_INLINE float reciprocal(float v) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(v));
  return inverse;
}
WGK_INLINE double reciprocal(double v) {
  double rough;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(rough) : "d"(v));  // 20 bits, which two steps of Newton's make all
  const double better = fma(fma(-v, rough, 1.0), rough, rough);
  const double best = fma(fma(-v, better, 1.0), better, better);
  return rough == 0 ? 0 : best;  // of infinity
}
#endif
// Where doubles are rare and slow a call costs no time, and without it their kernels need more registers than there are.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
__device__ __noinline__ inline double exp2_of_negative(double t) { return exp2(t); }
#else
WGK_INLINE double exp2_of_negative(double t) { return exp2(t); }
#endif

}  // namespace cuda
}  // namespace wgk

#include "kernel_functions.h"

namespace wgk {

constexpr int kPairWarps = 4, kPairThreads = 32 * kPairWarps;
constexpr int kFlush = 8;  // tiles over which products are added up in float
constexpr int kQuads = kPairThreads / 4;  // four lanes hold the pieces of a row

WGK_INLINE int thread_in_block() { return static_cast<int>(threadIdx.x); }
// The first of the 16 kM rows of a tile that are this warp's.
template <int kM>
WGK_INLINE int first_row_of_warp() {
  return thread_in_block() / 32 * 16 * kM;
}

// Rows [first, last) of the stacked points [x; y], all of one set.
struct RowSegment {
  int64_t first, last;
};

struct RowTile {
  int64_t first;
  int count;
  bool of_y;
};

// The index-th tile of `rows` rows of segments that lie in x and y by turns.
template <int kSegments>
__device__ RowTile tile_of_rows(const RowSegment (&segments)[kSegments], int rows, int64_t index) {
  for (int k = 0; k < kSegments; ++k) {
    const int64_t tiles = ceil_div(segments[k].last - segments[k].first, rows);
    if (index < tiles) {
      const int64_t first = segments[k].first + index * rows;
      return {first, static_cast<int>(min(static_cast<int64_t>(rows), segments[k].last - first)), k % 2 == 1};
    }
    index -= tiles;
  }
  return {0, 0, false};
}

// ---- kernel functions, made once for a block

struct alignas(8) StoredKernel {
  unsigned char bytes[32];
};

template <class T>
__device__ void store_kernel(KernelKind kind, double theta, StoredKernel* stored) {
  cuda::with_kernel<T>(kind, theta, [&](const auto& kernel) {
    using Kernel = std::decay_t<decltype(kernel)>;
    static_assert(sizeof(Kernel) <= sizeof(StoredKernel) && std::is_trivially_copyable_v<Kernel>);
    memcpy(stored, &kernel, sizeof(kernel));
  });
}

template <class T, class F>
WGK_INLINE void with_stored_kernel(KernelKind kind, const StoredKernel* stored, const F& f) {
  cuda::with_kernel<T>(kind, 1.0, [&](const auto& alike) {
    auto kernel = alike;
    memcpy(static_cast<void*>(&kernel), stored, sizeof(kernel));
    f(kernel);
  });
}

struct MixtureArguments {
  int C;
  uint8_t kinds[kMaxComponents];
  const double* thetas;        // [C]
  const double* along_thetas;  // [C] or null

  __device__ KernelKind kind(int c) const { return static_cast<KernelKind>(kinds[c]); }
};

inline MixtureArguments mixture_arguments(const KernelMixture& mixture) {
  MixtureArguments arguments{static_cast<int>(mixture.C), {}, mixture.thetas, mixture.along_thetas};
  for (int c = 0; c < arguments.C; ++c) {
    arguments.kinds[c] = static_cast<uint8_t>(mixture.kinds[c]);
  }
  return arguments;
}

// Whether problem b is computed in T, which is decided here because the host cannot wait for the norms. Like on the
// CPU, float gives way to double where distances would drown.
template <class T>
__device__ bool is_computed_in(const PairPoints& points, const MixtureArguments& mixture, int64_t b) {
  bool suffices = points.z.dtype != DType::float64;
  for (int c = 0; suffices && c < mixture.C; ++c) {
    suffices = float_distances_suffice(__uint_as_float(points.largest[b]), mixture.kind(c), mixture.thetas[c]);
  }
  return suffices == std::is_same_v<T, float>;
}

// ---- tiles in shared memory

// A tile's features are read in chunks; rows in shared memory are a few numbers longer, against bank conflicts.
template <class T>
constexpr int kFeatures = std::is_same_v<T, float> ? 64 : 32;
template <class T>
constexpr int kTileStride = kFeatures<T> + 4;

template <class T>
__device__ int feature_chunks(int64_t stride) {
  return stride == 0 ? 1 : static_cast<int>(ceil_div(stride, kFeatures<T>));
}

// The centred d-th feature of a point.
template <class T>
__device__ T centred_feature(const CentredPoints& p, int64_t b, int64_t row, int64_t d) {
  if constexpr (std::is_same_v<T, float>) {
    return p.rows[(b * (p.N + p.M) + row) * p.stride + d];
  } else {
    const bool of_y = row >= p.N;
    const void* points = of_y ? p.y : p.x;
    const int64_t at = of_y ? (b * p.M + row - p.N) * p.D + d : (b * p.N + row) * p.D + d;
    return d < p.D ? (points == nullptr ? 0 : load_element(p.dtype, points, at)) - p.origins[b * p.D + d] : 0;
  }
}

// Features [d, d + width) of `count` points from row `first` on, and zeros up to kRows: [kRows, kTileStride].
template <int kRows, class T>
__device__ void load_points(const CentredPoints& p, int64_t b, int64_t first, int count, int64_t d, int width,
                            T* tile) {
  constexpr int kStep = std::is_same_v<T, float> ? 4 : 1;
  constexpr int kSteps = kFeatures<T> / kStep;
#pragma unroll(kStep == 1 ? 1 : 4)
  for (int k = thread_in_block(); k < kRows * kSteps; k += kPairThreads) {
    const int row = k / kSteps, at = k % kSteps * kStep;
    if (at >= width) {
      continue;
    }
    if constexpr (std::is_same_v<T, float>) {
      const float* from = p.rows + (b * (p.N + p.M) + first + row) * p.stride + d + at;
      *reinterpret_cast<float4*>(tile + row * kTileStride<T> + at) =
          row < count ? *reinterpret_cast<const float4*>(from) : make_float4(0, 0, 0, 0);
    } else {
      tile[row * kTileStride<T> + at] = row < count ? centred_feature<T>(p, b, first + row, d + at) : 0;
    }
  }
}

template <class T>
__device__ T product_of(const PointProducts& products, int64_t at) {
  if constexpr (std::is_same_v<T, float>) {
    return products.narrow[at];
  } else {
    return products.wide[at];
  }
}

// ---- products on tensor cores; g and t as in mma.cuh

WGK_INLINE int lane_group() { return thread_in_block() % 32 / 4; }
WGK_INLINE int lane_in_group() { return thread_in_block() % 4; }

// sums += rows_i rows_j^T over `steps` steps of the features; rows_i are the 16 kM rows of this warp.
template <class P, int kM, int kN>
WGK_INLINE void add_dots(const typename P::T* rows_i, const typename P::T* rows_j, int steps,
                         typename P::T (&sums)[kM][kN][4]) {
  using T = typename P::T;
  constexpr int kStride = kTileStride<T>;
  const int g = lane_group(), t = lane_in_group();
#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    typename P::template Factor<4> a[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const T* row = rows_i + (16 * m + g) * kStride + step * kProductStep + t;
      const T pieces[4] = {row[0], row[8 * kStride], row[4], row[8 * kStride + 4]};
      a[m] = P::template factor<4>(pieces);
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const T* row = rows_j + (8 * n + g) * kStride + step * kProductStep + t;
      const T pieces[2] = {row[0], row[4]};
      const auto b = P::template factor<2>(pieces);
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        P::add(sums[m][n], a[m], b);
      }
    }
  }
}

// sums += w rows, for w [16, 8 kN] as add_dots leaves it and rows [8 kN, width]. Products add up over rows in any
// order: here each lane takes, as its columns t and t + 4 of w, the columns 2 t and 2 t + 1 that it holds.
template <class P, int kN, int kF>
WGK_INLINE void add_weighted(const typename P::T (&w)[kN][4], const typename P::T* rows, int width,
                             typename P::T (&sums)[kF][4]) {
  using T = typename P::T;
  const int g = lane_group(), t = lane_in_group();
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const T pieces[4] = {w[n][0], w[n][2], w[n][1], w[n][3]};
    const auto a = P::template factor<4>(pieces);
    const T* row = rows + (8 * n + 2 * t) * kTileStride<T> + g;
#pragma unroll
    for (int f = 0; f < kF; ++f) {
      if (8 * f < width) {
        const T column[2] = {row[8 * f], row[kTileStride<T> + 8 * f]};
        P::add(sums[f], a, P::template factor<2>(column));
      }
    }
  }
}

// Calls f with the way to multiply numbers of type T.
template <class T, class F>
WGK_INLINE void with_products(MatmulPrecision precision, const F& f) {
  if constexpr (std::is_same_v<T, double>) {
    f(DoubleProducts{});
  } else if (precision == MatmulPrecision::tf32) {
    f(Tf32Products{});
  } else {
    f(FloatProducts{});
  }
}

// ---- what a lane holds of a tile of pairs

constexpr int64_t kNoPair = -(int64_t{1} << 40);

// A bit for each number of rows g and g + 8 that counts: row < rows, column < columns, and column != row + self,
// where self is kNoPair if no pair is one of a point with itself.
template <int kN>
__device__ uint32_t counted_pairs(int row, int rows, int columns, int64_t self) {
  static_assert(kN <= 8, "32 bits");
  uint32_t bits = 0;
  for (int at = 0; at < 4 * kN; ++at) {
    const int r = row + lane_group() + at % 4 / 2 * 8, c = at / 4 * 8 + 2 * lane_in_group() + at % 2;
    bits |= r < rows && c < columns && c != r + self ? 1u << at : 0;
  }
  return bits;
}

// v = times (own + other) - 2 v, for products v [16, 8 kN] of two sets of points and those of their points with
// themselves: own ones from `first` on, of which this warp has the row-th and following of `count`, and others [8 kN] in
// shared memory.
template <int kN, class T>
WGK_INLINE void subtract_products(const PointProducts& own, int64_t first, int row, int count, const T* others, T times,
                                  T (&v)[kN][4]) {
  T owns[2];
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    owns[k] = product_of<T>(own, first + min(row + lane_group() + 8 * k, count - 1));
  }
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    T& each = v[at / 4][at % 4];
    each = times * (owns[at % 4 / 2] + others[at / 4 * 8 + 2 * lane_in_group() + at % 2]) - 2 * each;
  }
}

template <class T, int kN>
WGK_INLINE void clamp_at_zero(T (&v)[kN][4]) {
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    T& each = v[at / 4][at % 4];
    each = each < 0 ? T{0} : each;  // keeps NaN
  }
}

// Of the four lanes that hold a row, in a fixed order; all of them get it.
template <class T>
WGK_INLINE T quad_sum(T v) {
  v += __shfl_xor_sync(0xffffffffu, v, 1);
  return v + __shfl_xor_sync(0xffffffffu, v, 2);
}

// Floats are added up over kFlush tiles, then in double in global memory, where this block alone writes: to the numbers
// of 16 rows of which `count` are left, `stride` apart, `width` of them.
template <int kF, class T>
WGK_INLINE void flush_sums(T (&sums)[kF][4], double* to, int64_t stride, int count, int width, bool first) {
#pragma unroll
  for (int f = 0; f < kF; ++f) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int row = lane_group() + e / 2 * 8, column = 8 * f + 2 * lane_in_group() + e % 2;
      if (row < count && column < width) {
        double* sum = to + row * stride + column;
        *sum = (first ? 0 : *sum) + static_cast<double>(sums[f][e]);
      }
      sums[f][e] = 0;
    }
  }
}

// Sets the pairs that do not count to 0, and rounds the others as products take them; rows: their sums, of two rows.
template <class P, int kN>
WGK_INLINE void mask_weights(typename P::T (&w)[kN][4], uint32_t counted, typename P::T (&rows)[2]) {
  using T = typename P::T;
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    T& v = w[at / 4][at % 4];
    v = counted >> at & 1 ? P::rounded(v) : T{0};
    rows[at % 4 / 2] += v;
  }
}

}  // namespace wgk
