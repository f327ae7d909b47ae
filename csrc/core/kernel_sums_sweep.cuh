// The sweep of kernel_sums on a GPU: a block takes a tile of rows against a range of tiles of columns.
#pragma once

#include "kernel_sums_tile.cuh"

namespace wgk {

// s from the products of all features. Leaves the chunk of the unit's features in shared memory.
template <class P, PairMode mode>
WGK_INLINE void multiply_tile(const SumsArguments& a, const SumsUnit& unit, const RowTile& columns, bool reload_rows,
                              const SumsShared<typename P::T, mode>& shared, LanePairs<typename P::T, mode>& pairs) {
  using T = typename P::T;
  using Shape = SumsShape<T, mode>;
  const CentredPoints& z = a.points.z;
  using S = typename P::Tile;
  const int chunks = feature_chunks(z.stride, kFeatures<T>), warp = first_row_of_warp<Shape::kM>();
  const auto rows = [&](int set) { return tile_of<P>(shared.rows + set * shared.kRowTile); };
  const auto others = [&](int set) { return tile_of<P>(shared.columns + set * shared.kColumnTile); };
  for (int q = 1; q <= chunks; ++q) {
    const int64_t d = static_cast<int64_t>((unit.chunk + q) % chunks) * kFeatures<T>;
    const int width = static_cast<int>(min(z.stride - d, static_cast<int64_t>(kFeatures<T>)));
    __syncthreads();  // nobody reads the last tile any more
    for (int set = 0; set < Shape::kSets; ++set) {
      const CentredPoints& points = set == 0 ? z : a.points.along;
      if (reload_rows || chunks > 1) {
        load_points<P, Shape::kRows>(points, unit.b, unit.rows.first, unit.rows.count, d, width, rows(set));
      }
      load_points<P, Shape::kColumns>(points, unit.b, columns.first, columns.count, d, width, others(set));
      if (q == 1 && thread_in_block() < columns.count) {
        const int64_t at = unit.b * (z.N + z.M) + columns.first + threadIdx.x;
        const int to = set * Shape::kColumns + thread_in_block();
        shared.norms[to] = product_of<T>(set == 0 ? a.points.norms : a.points.along_norms, unit.numbers, at);
        if (a.mixture.has_products) {
          shared.shifts[to] = product_of<T>(set == 0 ? a.points.shifts : a.points.along_shifts, unit.numbers, at);
        }
      }
    }
    __syncthreads();
    if (warp < unit.rows.count) {
      const S* own = rows(0) + warp * kTileStride<S>;
      add_dots<P>(own, others(0), width, pairs.s);
      if constexpr (mode == PairMode::tangents) {
        add_dots<P>(rows(1) + warp * kTileStride<S>, others(0), width, pairs.along_s);
        add_dots<P>(own, others(1), width, pairs.along_s);
      }
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
WGK_INLINE void weigh_tile(typename P::T (&w)[kN][4], uint32_t counted, typename P::T* rows, int width,
                           double (&w_sums)[2], LaneMoves<typename P::T, mode>& moves) {
  using T = typename P::T;
  T row_sums[2] = {};
  mask_weights<P>(w, counted, row_sums);
  w_sums[0] += static_cast<double>(row_sums[0]);
  w_sums[1] += static_cast<double>(row_sums[1]);
  add_weighted<typename P::Weighted>(w, tile_of<P>(rows), width, moves.sums);
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
WGK_INLINE void store_w_sums(const SumsArguments& a, const SumsUnit& unit, const SumsShared<T, mode>& shared,
                             const LaneMoves<T, mode>& moves) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const double sum = quad_sum(moves.w_sums[k / 2][k % 2]);
    const int row = first_row_of_warp<1>() + lane_group() + k % 2 * 8;
    if (lane_in_group() == 0 && row < unit.rows.count) {
      const double products = shared.product_sum(k / 2, k % 2);
      a.w_sums_of(unit.chunk, unit.split, unit.b, unit.rows.first + row)[k / 2] = sum + products / 2;
      if (unit.chunk == 0 && a.mixture.has_products) {
        a.product_sums_of(unit.split, unit.b, unit.rows.first + row)[k / 2] = products;
      }
    }
  }
}

template <PairMode mode, bool has_theta, class T>
WGK_INLINE void sweep_unit(const SumsArguments& a, const SumsUnit& unit, const SumsShared<T, mode>& shared) {
  using Shape = SumsShape<T, mode>;
  constexpr int kW = mode == PairMode::values ? 1 : Shape::kN;
  const CentredPoints& z = a.points.z;
  const int width = static_cast<int>(min(z.stride - unit.chunk * kFeatures<T>, static_cast<int64_t>(kFeatures<T>)));
  LaneMoves<T, mode> moves{};
  int64_t flushed = unit.first;
  for (int64_t tile = unit.first; tile < unit.last; ++tile) {
    const RowTile columns = tile_of_rows(a.columns, Shape::kColumns, tile);
    LanePairs<T, mode> pairs{};
    with_products<T>(a.points, unit.numbers, [&](auto products) {
      multiply_tile<decltype(products), mode>(a, unit, columns, tile == unit.first, shared, pairs);
    });
    if (first_row_of_warp<Shape::kM>() >= unit.rows.count) {
      continue;
    }
    count_pairs(unit, columns, pairs);
    const bool same_set = columns.of_y == unit.rows.of_y, counted = unit.chunk == 0 && columns.first >= unit.rows.first;
    const bool twice = same_set && columns.first >= unit.rows.first + unit.rows.count;
    const double factor = counted ? (twice ? 2.0 : 1.0) : 0.0;
    T w[kW][4] = {}, along_w[kW][4] = {};
    if (a.mixture.has_products) {
      evaluate_products<mode, has_theta>(a, unit, columns, same_set, factor, shared, pairs, w, along_w);
    }
    measure_tile(a, unit, shared, pairs);
    const DistancePairs<T, mode> distances{a, unit, shared, pairs};
    evaluate_tile<mode, has_theta>(a, same_set, factor, shared, distances, w, along_w);
    if constexpr (mode != PairMode::values) {
      if (unit.has_gradient) {
        with_products<T>(a.points, unit.numbers, [&](auto products) {
          using P = decltype(products);
          weigh_tile<P>(w, pairs.counted[0], shared.columns + (Shape::kSets - 1) * shared.kColumnTile, width,
                        moves.w_sums[0], moves);
          if constexpr (mode == PairMode::tangents) {
            weigh_tile<P>(along_w, pairs.counted[0], shared.columns, width, moves.w_sums[1], moves);
          }
        });
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
      store_w_sums(a, unit, shared, moves);
    }
  }
}

template <class T, PairMode mode, bool has_theta>
__global__ void __launch_bounds__(kPairThreads, 2) sums_kernel(const SumsArguments a) {
  using Shape = SumsShape<T, mode>;
  WGK_DYN_SHARED(unsigned char, memory);
  const int chunks = mode == PairMode::values ? 1 : feature_chunks(a.points.z.stride, kFeatures<T>);
  SumsUnit unit = sums_unit<Shape>(a, chunks);
  unit.numbers = pair_numbers(a.points, a.mixture, unit.b);
  if ((unit.numbers == PairNumbers::wide) != std::is_same_v<T, double> || (unit.chunk > 0 && !unit.has_gradient)) {
    return;
  }
  const SumsShared<T, mode> shared(memory, a.mixture.C);
  prepare_block(a, unit, shared);
  sweep_unit<mode, has_theta>(a, unit, shared);
  if (unit.chunk == 0) {
    store_shares<T, mode, has_theta>(a, unit, shared);
  }
}

}  // namespace wgk
