// The sweep of kernel_sums on a GPU: a block takes a tile of rows against a range of tiles of columns.
//
// A tile of rows whose points want a gradient meets all columns, so that the gradient is summed in one place; pairs are
// counted where the columns' tile does not come before the rows'. Other tiles meet only those columns.
//
// n = m = 16,384 and D = 64, values alone: 5.4e8 pairs of 128 operations are 6.9e10, 2.1e11 in three products of TF32
// (0.42 ms of an H100's 495 TFLOP/s), 5.4e8 exponentials (0.15 ms), 17 MB of points; that is half a millisecond.
#pragma once

#include "kernel_sums.h"
#include "pair_blocks.cuh"

namespace wgk {

struct SumsArguments {
  PairPoints points;
  MixtureArguments mixture;
  const double* weights;  // [B, 3, C]; null without gradients
  RowSegment columns[4];  // owned x, owned y, other x, other y
  RowSegment rows[4];     // those of them that are swept
  bool wants[2];          // gradients of x and y
  int64_t row_tiles, splits;
  double* shares;         // [B, 3, C, 2, row_tiles * splits], of the sums and those of theta
  double* moved;          // [splits, B, N + M, stride], sum_j w_ij z_j
  double* w_sums;         // [splits, B, N + M, 2], sum_j w_ij, and the same of the tangent's weights
};

template <class T, PairMode mode>
struct SumsShape {
  static constexpr bool kTangents = mode == PairMode::tangents;
  static constexpr int kM = mode == PairMode::values ? 2 : 1, kRows = kPairWarps * 16 * kM;
  // As many columns as leave their pairs room in registers.
  static constexpr int kColumns = std::is_same_v<T, double> || kTangents ? 16 : 32, kN = kColumns / 8;
  static constexpr int kF = kFeatures<T> / 8;
  static constexpr int kSets = kTangents ? 2 : 1;  // z, and u
};

// Shared memory. Sums are kept by whether rows and columns are of one set, component, and what is summed.
template <class T, PairMode mode>
struct SumsShared {
  using Shape = SumsShape<T, mode>;
  static constexpr int kRowTile = Shape::kRows * kTileStride<T>, kColumnTile = Shape::kColumns * kTileStride<T>;
  double* sums;           // [2, C, 2, kQuads]
  StoredKernel* kernels;  // [C]
  T* rows;                // [kSets, kRowTile]
  T* columns;             // [kSets, kColumnTile]
  T* norms;               // [kSets, kColumns] of the columns
  T* weights;             // [2, C]
  T* along_thetas;        // [C]

  static int64_t bytes(int64_t C) {
    return 4 * C * kQuads * sizeof(double) + C * sizeof(StoredKernel) +
           (Shape::kSets * (kRowTile + kColumnTile + Shape::kColumns) + 3 * C) * sizeof(T);
  }
  __device__ SumsShared(unsigned char* memory, int C) {
    sums = reinterpret_cast<double*>(memory);
    kernels = reinterpret_cast<StoredKernel*>(sums + 4 * C * kQuads);
    rows = reinterpret_cast<T*>(kernels + C);
    columns = rows + Shape::kSets * kRowTile;
    norms = columns + Shape::kSets * kColumnTile;
    weights = norms + Shape::kSets * Shape::kColumns;
    along_thetas = weights + 2 * C;
  }
};

// What one block works on.
struct SumsUnit {
  int64_t b, number;            // of the unit among those of its problem
  int64_t split;
  int chunk;                    // of the features of the gradient; the first counts the pairs
  RowTile rows;
  int64_t first, last;          // tiles of columns
  bool has_gradient;
};

template <class Shape>
__device__ SumsUnit sums_unit(const SumsArguments& a, int chunks) {
  SumsUnit unit;
  int64_t k = blockIdx.x;
  unit.chunk = static_cast<int>(k % chunks);
  k /= chunks;
  unit.b = k % a.points.z.B;
  unit.number = k / a.points.z.B;
  unit.split = unit.number % a.splits;
  unit.rows = tile_of_rows(a.rows, Shape::kRows, unit.number / a.splits);
  unit.has_gradient = a.wants[unit.rows.of_y];
  const auto tiles = [&](int k) { return ceil_div(a.columns[k].last - a.columns[k].first, Shape::kColumns); };
  const bool owned = unit.rows.first < a.columns[unit.rows.of_y].last && unit.rows.first >= a.columns[unit.rows.of_y].first;
  const int64_t last = tiles(0) + tiles(1) + (owned ? tiles(2) + tiles(3) : 0);
  const int64_t self = unit.rows.of_y ? tiles(0) + (unit.rows.first - a.columns[1].first) / Shape::kColumns
                                      : (unit.rows.first - a.columns[0].first) / Shape::kColumns;
  const int64_t first = unit.has_gradient ? 0 : self;
  unit.first = first + (last - first) * unit.split / a.splits;
  unit.last = first + (last - first) * (unit.split + 1) / a.splits;
  return unit;
}

template <class T, PairMode mode>
__device__ void prepare_block(const SumsArguments& a, const SumsUnit& unit, const SumsShared<T, mode>& shared) {
  const int C = a.mixture.C;
  for (int k = thread_in_block(); k < 4 * C * kQuads; k += kPairThreads) {
    shared.sums[k] = 0;
  }
  for (int c = thread_in_block(); c < C; c += kPairThreads) {
    store_kernel<T>(a.mixture.kind(c), a.mixture.thetas[c], shared.kernels + c);
    if (mode != PairMode::values) {
      // In a set with itself, (i, j) and (j, i) both move point i.
      const double* weights = a.weights + unit.b * 3 * C + c;
      shared.weights[c] = static_cast<T>(2 * weights[unit.rows.of_y * C]);
      shared.weights[C + c] = static_cast<T>(weights[2 * C]);
      shared.along_thetas[c] = static_cast<T>(mode == PairMode::tangents ? a.mixture.along_thetas[c] : 0);
    }
  }
}

// Numbers of one tile of pairs that a lane holds.
template <class T, PairMode mode>
struct LanePairs {
  using Shape = SumsShape<T, mode>;
  static constexpr int kM = Shape::kM, kN = Shape::kN;
  T s[kM][kN][4];                    // products of points, then squared distances
  T along_s[kM][mode == PairMode::tangents ? kN : 1][4];
  uint32_t counted[kM];
};

// s from the products of all features. Leaves the chunk of the unit's features in shared memory.
template <class P, PairMode mode>
WGK_INLINE void multiply_tile(const SumsArguments& a, const SumsUnit& unit, const RowTile& columns, bool reload_rows,
                              const SumsShared<typename P::T, mode>& shared, LanePairs<typename P::T, mode>& pairs) {
  using T = typename P::T;
  using Shape = SumsShape<T, mode>;
  const CentredPoints& z = a.points.z;
  const int chunks = feature_chunks<T>(z.stride), warp = first_row_of_warp<Shape::kM>();
  const T* rows = shared.rows + warp * kTileStride<T>;
  for (int q = 1; q <= chunks; ++q) {
    const int64_t d = static_cast<int64_t>((unit.chunk + q) % chunks) * kFeatures<T>;
    const int width = static_cast<int>(min(z.stride - d, static_cast<int64_t>(kFeatures<T>)));
    __syncthreads();  // nobody reads the last tile any more
    for (int set = 0; set < Shape::kSets; ++set) {
      const CentredPoints& points = set == 0 ? z : a.points.along;
      if (reload_rows || chunks > 1) {
        load_points<Shape::kRows>(points, unit.b, unit.rows.first, unit.rows.count, d, width,
                                  shared.rows + set * shared.kRowTile);
      }
      load_points<Shape::kColumns>(points, unit.b, columns.first, columns.count, d, width,
                                   shared.columns + set * shared.kColumnTile);
      if (q == 1 && thread_in_block() < columns.count) {
        shared.norms[set * Shape::kColumns + threadIdx.x] = product_of<T>(
            set == 0 ? a.points.norms : a.points.along_norms, unit.b * (z.N + z.M) + columns.first + threadIdx.x);
      }
    }
    __syncthreads();
    if (warp < unit.rows.count) {
      add_dots<P>(rows, shared.columns, width / static_cast<int>(kProductStep), pairs.s);
      if constexpr (mode == PairMode::tangents) {
        add_dots<P>(rows + shared.kRowTile, shared.columns, width / static_cast<int>(kProductStep), pairs.along_s);
        add_dots<P>(rows, shared.columns + shared.kColumnTile, width / static_cast<int>(kProductStep), pairs.along_s);
      }
    }
  }
}

// One component of the mixture on what a lane holds: adds to w, and to sums [2] for each row, of k and of k_t.
template <PairMode mode, bool has_theta, class T, class K, int kW>
WGK_INLINE void add_component(const K& kernel, const LanePairs<T, mode>& pairs, T weight, T along_theta,
                              T (&w)[kW][4], T (&along_w)[kW][4], T (&sums)[2][2 * SumsShape<T, mode>::kM]) {
  constexpr int kM = SumsShape<T, mode>::kM, kN = SumsShape<T, mode>::kN;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int at = 0; at < 4 * kN; ++at) {
      const int n = at / 4, e = at % 4;
      const bool counts = pairs.counted[m] >> at & 1;
      const auto terms = kernel(pairs.s[m][n][e]);
      T value = terms.k, theta = terms.k_t;
      if constexpr (mode == PairMode::tangents) {
        const T along_s = pairs.along_s[m][n][e];
        value = terms.k_s * along_s + terms.k_t * along_theta;
        theta = terms.k_st * along_s + terms.k_tt * along_theta;
        along_w[n][e] += weight * (terms.k_ss * along_s + terms.k_st * along_theta);
      }
      if constexpr (mode != PairMode::values) {
        w[n][e] += weight * terms.k_s;
      }
      sums[0][2 * m + e / 2] += counts ? value : T{0};
      if constexpr (has_theta) {
        sums[1][2 * m + e / 2] += counts ? theta : T{0};
      }
    }
  }
}

// All components: sets w, and adds the sums, times `factor`, to those of the block.
template <PairMode mode, bool has_theta, class T, int kW>
WGK_INLINE void evaluate_tile(const SumsArguments& a, bool same_set, double factor,
                              const SumsShared<T, mode>& shared, const LanePairs<T, mode>& pairs, T (&w)[kW][4],
                              T (&along_w)[kW][4]) {
  constexpr int kM = SumsShape<T, mode>::kM;
  const int C = a.mixture.C;
  for (int c = 0; c < C; ++c) {
    T sums[2][2 * kM] = {};
    const int at = same_set ? c : C + c;
    const T weight = mode == PairMode::values ? T{0} : shared.weights[at];
    const T along_theta = mode == PairMode::tangents ? shared.along_thetas[c] : T{0};
    with_stored_kernel<T>(a.mixture.kind(c), shared.kernels + c, [&](const auto& kernel) {
      add_component<mode, has_theta>(kernel, pairs, weight, along_theta, w, along_w, sums);
    });
#pragma unroll
    for (int q = 0; q < (has_theta ? 2 : 1); ++q) {
      double sum = 0;
#pragma unroll
      for (int row = 0; row < 2 * kM; ++row) {
        sum += static_cast<double>(sums[q][row]);
      }
      sum = quad_sum(sum);
      if (lane_in_group() == 0 && factor != 0) {
        shared.sums[(at * 2 + q) * kQuads + threadIdx.x / 4] += factor * sum;
      }
    }
  }
}

// Squared distances from products, and which pairs count.
template <class T, PairMode mode>
WGK_INLINE void measure_tile(const SumsArguments& a, const SumsUnit& unit, const RowTile& columns,
                             const SumsShared<T, mode>& shared, LanePairs<T, mode>& pairs) {
  using Shape = SumsShape<T, mode>;
  const int64_t R = a.points.z.N + a.points.z.M;
  const bool whole = columns.count == Shape::kColumns && unit.rows.count == Shape::kRows &&
                     (columns.first >= unit.rows.first + Shape::kRows || columns.first + Shape::kColumns <= unit.rows.first);
#pragma unroll
  for (int m = 0; m < Shape::kM; ++m) {
    const int row = first_row_of_warp<Shape::kM>() + 16 * m;
    pairs.counted[m] = whole ? ~0u : counted_pairs<Shape::kN>(row, unit.rows.count, columns.count,
                                                              unit.rows.first - columns.first);
    const int64_t first = unit.b * R + unit.rows.first;
    subtract_products(a.points.norms, first, row, unit.rows.count, shared.norms, T{1}, pairs.s[m]);
    clamp_at_zero(pairs.s[m]);
    if constexpr (Shape::kTangents) {
      subtract_products(a.points.along_norms, first, row, unit.rows.count, shared.norms + Shape::kColumns, T{2},
                        pairs.along_s[m]);
    }
  }
}

// The gradient's sums of the unit's rows: sum_j w_ij z_j of 64 or 32 features, and sum_j w_ij.
template <class T, PairMode mode>
struct LaneMoves {
  using Shape = SumsShape<T, mode>;
  T sums[Shape::kF][4];
  double w_sums[2][2];  // of w and along_w, of two rows
};

template <class P, PairMode mode, int kN>
WGK_INLINE void weigh_tile(typename P::T (&w)[kN][4], uint32_t counted, const typename P::T* rows, int width,
                           double (&w_sums)[2], LaneMoves<typename P::T, mode>& moves) {
  using T = typename P::T;
  T row_sums[2] = {};
  mask_weights<P>(w, counted, row_sums);
  w_sums[0] += static_cast<double>(row_sums[0]);
  w_sums[1] += static_cast<double>(row_sums[1]);
  add_weighted<P>(w, rows, width, moves.sums);
}

template <class T, PairMode mode>
WGK_INLINE void flush_moves(const SumsArguments& a, const SumsUnit& unit, int width, bool first,
                            LaneMoves<T, mode>& moves) {
  const CentredPoints& z = a.points.z;
  const int row = first_row_of_warp<1>();
  double* to = a.moved + ((unit.split * z.B + unit.b) * (z.N + z.M) + unit.rows.first + row) * z.stride +
               unit.chunk * static_cast<int64_t>(kFeatures<T>);
  flush_sums(moves.sums, to, z.stride, unit.rows.count - row, width, first);
}

template <class T, PairMode mode>
WGK_INLINE void store_w_sums(const SumsArguments& a, const SumsUnit& unit, const LaneMoves<T, mode>& moves) {
  const CentredPoints& z = a.points.z;
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const double sum = quad_sum(moves.w_sums[k / 2][k % 2]);
    const int row = first_row_of_warp<1>() + lane_group() + k % 2 * 8;
    if (lane_in_group() == 0 && row < unit.rows.count) {
      a.w_sums[((unit.split * z.B + unit.b) * (z.N + z.M) + unit.rows.first + row) * 2 + k / 2] = sum;
    }
  }
}

// The sums of the block, of its share of all pairs: added in the order of the lanes.
template <class T, PairMode mode, bool has_theta>
__device__ void store_shares(const SumsArguments& a, const SumsUnit& unit, const SumsShared<T, mode>& shared) {
  const int C = a.mixture.C;
  __syncthreads();
  for (int k = thread_in_block(); k < 6 * C; k += kPairThreads) {
    const int block = k / (2 * C), c = k / 2 % C, q = k % 2, own = unit.rows.of_y ? 1 : 0;
    double sum = 0;
    if ((block == own || block == 2) && (has_theta || q == 0)) {
      const double* sums = shared.sums + ((block == 2 ? C + c : c) * 2 + q) * kQuads;
      for (int quad = 0; quad < kQuads; ++quad) {
        sum += sums[quad];
      }
    }
    a.shares[(unit.b * 6 * C + k) * (a.row_tiles * a.splits) + unit.number] = sum;
  }
}

template <class P, PairMode mode, bool has_theta>
WGK_INLINE void sweep_unit(const SumsArguments& a, const SumsUnit& unit,
                           const SumsShared<typename P::T, mode>& shared) {
  using T = typename P::T;
  using Shape = SumsShape<T, mode>;
  constexpr int kW = mode == PairMode::values ? 1 : Shape::kN;
  const CentredPoints& z = a.points.z;
  const int width = static_cast<int>(min(z.stride - unit.chunk * kFeatures<T>, static_cast<int64_t>(kFeatures<T>)));
  LaneMoves<T, mode> moves{};
  int64_t flushed = unit.first;
  for (int64_t tile = unit.first; tile < unit.last; ++tile) {
    const RowTile columns = tile_of_rows(a.columns, Shape::kColumns, tile);
    LanePairs<T, mode> pairs{};
    multiply_tile<P, mode>(a, unit, columns, tile == unit.first, shared, pairs);
    if (first_row_of_warp<Shape::kM>() >= unit.rows.count) {
      continue;
    }
    measure_tile<T, mode>(a, unit, columns, shared, pairs);
    const bool same_set = columns.of_y == unit.rows.of_y, counted = unit.chunk == 0 && columns.first >= unit.rows.first;
    const bool twice = same_set && columns.first >= unit.rows.first + unit.rows.count;
    T w[kW][4] = {}, along_w[kW][4] = {};
    evaluate_tile<mode, has_theta>(a, same_set, counted ? (twice ? 2.0 : 1.0) : 0.0, shared, pairs, w, along_w);
    if constexpr (mode != PairMode::values) {
      if (unit.has_gradient) {
        weigh_tile<P>(w, pairs.counted[0], shared.columns + (Shape::kSets - 1) * shared.kColumnTile, width,
                      moves.w_sums[0], moves);
        if constexpr (mode == PairMode::tangents) {
          weigh_tile<P>(along_w, pairs.counted[0], shared.columns, width, moves.w_sums[1], moves);
        }
        if (tile + 1 - flushed == kFlush) {
          flush_moves(a, unit, width, flushed == unit.first, moves);
          flushed = tile + 1;
        }
      }
    }
  }
  if constexpr (mode != PairMode::values) {
    if (unit.has_gradient) {
      flush_moves(a, unit, width, flushed == unit.first, moves);
      if (unit.chunk == 0) {
        store_w_sums(a, unit, moves);
      }
    }
  }
}

template <class T, PairMode mode, bool has_theta>
__global__ void __launch_bounds__(kPairThreads, 2) sums_kernel(const SumsArguments a) {
  using Shape = SumsShape<T, mode>;
  WGK_DYN_SHARED(unsigned char, memory);
  const SumsUnit unit = sums_unit<Shape>(a, mode == PairMode::values ? 1 : feature_chunks<T>(a.points.z.stride));
  if (!is_computed_in<T>(a.points, a.mixture, unit.b) || (unit.chunk > 0 && !unit.has_gradient)) {
    return;
  }
  const SumsShared<T, mode> shared(memory, a.mixture.C);
  prepare_block(a, unit, shared);
  with_products<T>(a.points.precision, [&](auto products) {
    sweep_unit<decltype(products), mode, has_theta>(a, unit, shared);
  });
  if (unit.chunk == 0) {
    store_shares<T, mode, has_theta>(a, unit, shared);
  }
}

}  // namespace wgk
