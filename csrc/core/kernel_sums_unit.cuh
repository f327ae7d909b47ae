// What one block of the sweep of kernel_sums works on, its shared memory, and where its share of the sums goes.
//
// A tile of rows whose points want a gradient meets all columns, so that the gradient is summed in one place; pairs are
// counted where the columns' tile does not come before the rows'. Other tiles meet only those columns.
#pragma once

#include "kernel_sums.h"
#include "pair_blocks.cuh"

namespace wgk {

struct SumsArguments {
  PairPoints points;
  MixtureArguments mixture;
  const double* weights;  // [B, 3, C]; null without gradients
  bool diagonal;          // kernels of products count the pairs of a point with itself
  RowSegment columns[4];  // owned x, owned y, other x, other y
  RowSegment rows[4];     // those of them that are swept
  bool wants[2];          // gradients of x and y
  int64_t row_tiles, splits;
  double* shares;         // [B, 3, C, 2, row_tiles * splits], of the sums and those of theta
  double* moved;          // [splits, B, N + M, stride], sum_j w_ij z_j
  double* w_sums;         // [chunks, splits, B, N + M, 2], sum_j w_ij, and the same of the tangent's weights
  double* product_sums;   // [splits, B, N + M, 2], the same of kernels of products alone

  // Every chunk of the features has sums of its own: its distances are added up in another order, and what
  // z_i sum_j w_ij and sum_j w_ij z_j have in common cancels only for the very same weights.
  __device__ double* w_sums_of(int64_t chunk, int64_t split, int64_t b, int64_t row) const {
    return w_sums + (((chunk * splits + split) * points.z.B + b) * (points.z.N + points.z.M) + row) * 2;
  }
  __device__ double* product_sums_of(int64_t split, int64_t b, int64_t row) const {
    return product_sums + ((split * points.z.B + b) * (points.z.N + points.z.M) + row) * 2;
  }
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
  static constexpr int kProductSums = mode == PairMode::values ? 0 : 2 * Shape::kRows;
  double* sums;           // [2, C, 2, kQuads]
  StoredKernel* kernels;  // [C]
  double* product_sums;   // [2, kRows], sum_j w_ij of kernels of products, and along_w_ij; none for values
  T* rows;                // [kSets, kRowTile]
  T* columns;             // [kSets, kColumnTile]
  T* norms;               // [kSets, kColumns] of the columns
  T* shifts;              // the same
  T* weights;             // [2, C]
  T* along_thetas;        // [C]

  static int64_t bytes(int64_t C) {
    return (4 * C * kQuads + kProductSums) * sizeof(double) + C * sizeof(StoredKernel) +
           (Shape::kSets * (kRowTile + kColumnTile + 2 * Shape::kColumns) + 3 * C) * sizeof(T);
  }
  __device__ SumsShared(unsigned char* memory, int C) {
    sums = reinterpret_cast<double*>(memory);
    kernels = reinterpret_cast<StoredKernel*>(sums + 4 * C * kQuads);
    product_sums = reinterpret_cast<double*>(kernels + C);
    rows = reinterpret_cast<T*>(product_sums + kProductSums);
    columns = rows + Shape::kSets * kRowTile;
    norms = columns + Shape::kSets * kColumnTile;
    shifts = norms + Shape::kSets * Shape::kColumns;
    weights = shifts + Shape::kSets * Shape::kColumns;
    along_thetas = weights + 2 * C;
  }
  // Of the row that a lane with the numbers of pairs (*, 2 k) has: no other thread touches it.
  __device__ double& product_sum(int set, int k) const {
    return product_sums[set * Shape::kRows + first_row_of_warp<1>() + lane_group() + 8 * k];
  }
};

// What one block works on.
struct SumsUnit {
  PairNumbers numbers;
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
  const RowSegment& own = a.columns[unit.rows.of_y];
  const bool owned = unit.rows.first < own.last && unit.rows.first >= own.first;
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
  if (mode != PairMode::values && lane_in_group() == 0) {
    for (int k = 0; k < 4; ++k) {
      shared.product_sum(k / 2, k % 2) = 0;
    }
  }
  for (int c = thread_in_block(); c < C; c += kPairThreads) {
    store_kernel<T>(a.mixture, c, shared.kernels + c);
    if (mode != PairMode::values) {
      // In a set with itself, (i, j) and (j, i) both move point i.
      const double* weights = a.weights + unit.b * 3 * C + c;
      shared.weights[c] = static_cast<T>(2 * weights[unit.rows.of_y * C]);
      shared.weights[C + c] = static_cast<T>(weights[2 * C]);
      shared.along_thetas[c] = static_cast<T>(mode == PairMode::tangents ? a.mixture.along_thetas[c] : 0);
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

}  // namespace wgk
