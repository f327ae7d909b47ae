// The sweep of kernel_sums on a GPU: a block takes a tile of rows against a range of tiles of columns.
#pragma once

#include "kernel_sums_unit.cuh"

namespace wgk {

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
        shared.norms[set * Shape::kColumns + threadIdx.x] = product_of<P>(
            set == 0 ? a.points.norms : a.points.along_norms, unit.b * (z.N + z.M) + columns.first + threadIdx.x);
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
template <class P, PairMode mode>
WGK_INLINE void measure_tile(const SumsArguments& a, const SumsUnit& unit, const RowTile& columns,
                             const SumsShared<typename P::T, mode>& shared, LanePairs<typename P::T, mode>& pairs) {
  using T = typename P::T;
  using Shape = SumsShape<T, mode>;
  const int64_t R = a.points.z.N + a.points.z.M;
  const bool apart =
      columns.first >= unit.rows.first + Shape::kRows || columns.first + Shape::kColumns <= unit.rows.first;
  const bool whole = apart && columns.count == Shape::kColumns && unit.rows.count == Shape::kRows;
#pragma unroll
  for (int m = 0; m < Shape::kM; ++m) {
    const int row = first_row_of_warp<Shape::kM>() + 16 * m;
    pairs.counted[m] = whole ? ~0u : counted_pairs<Shape::kN>(row, unit.rows.count, columns.count,
                                                              unit.rows.first - columns.first);
    const int64_t first = unit.b * R + unit.rows.first;
    subtract_products<P>(a.points.norms, first, row, unit.rows.count, shared.norms, T{1}, pairs.s[m]);
    clamp_at_zero(pairs.s[m]);
    if constexpr (Shape::kTangents) {
      subtract_products<P>(a.points.along_norms, first, row, unit.rows.count, shared.norms + Shape::kColumns, T{2},
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
WGK_INLINE void store_w_sums(const SumsArguments& a, const SumsUnit& unit, const LaneMoves<T, mode>& moves) {
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    const double sum = quad_sum(moves.w_sums[k / 2][k % 2]);
    const int row = first_row_of_warp<1>() + lane_group() + k % 2 * 8;
    if (lane_in_group() == 0 && row < unit.rows.count) {
      a.w_sums_of(unit.chunk, unit.split, unit.b, unit.rows.first + row)[k / 2] = sum;
    }
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
    measure_tile<P, mode>(a, unit, columns, shared, pairs);
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
      store_w_sums(a, unit, moves);
    }
  }
}

template <class T, PairMode mode, bool has_theta>
__global__ void __launch_bounds__(kPairThreads, 2) sums_kernel(const SumsArguments a) {
  using Shape = SumsShape<T, mode>;
  WGK_DYN_SHARED(unsigned char, memory);
  const int chunks = mode == PairMode::values ? 1 : feature_chunks(a.points.z.stride, kFeatures<T>);
  const SumsUnit unit = sums_unit<Shape>(a, chunks);
  const PairNumbers numbers = pair_numbers(a.points, a.mixture, unit.b);
  if ((numbers == PairNumbers::wide) != std::is_same_v<T, double> || (unit.chunk > 0 && !unit.has_gradient)) {
    return;
  }
  const SumsShared<T, mode> shared(memory, a.mixture.C);
  prepare_block(a, unit, shared);
  with_products<T>(a.points, numbers, [&](auto products) {
    sweep_unit<decltype(products), mode, has_theta>(a, unit, shared);
  });
  if (unit.chunk == 0) {
    store_shares<T, mode, has_theta>(a, unit, shared);
  }
}

}  // namespace wgk
