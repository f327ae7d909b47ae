// One tile of pairs of kernel_sums: from products of its points to squared distances, kernel functions and weights.
#pragma once

#include "kernel_sums_unit.cuh"

namespace wgk {

// Numbers of one tile of pairs that a lane holds.
template <class T, PairMode mode>
struct LanePairs {
  using Shape = SumsShape<T, mode>;
  static constexpr int kM = Shape::kM, kN = Shape::kN;
  T s[kM][kN][4];                    // products of centred points, then squared distances
  T along_s[kM][mode == PairMode::tangents ? kN : 1][4];
  uint32_t counted[kM];
};

// Of the unit's rows of this warp, the m-th 16 of them, and the columns.
template <PairMode mode, class T>
WGK_INLINE PairSums<T> own_pair_sums(const SumsArguments& a, const SumsUnit& unit, const PointProducts& own, int m,
                                     const T* others) {
  const int64_t first = unit.b * (a.points.z.N + a.points.z.M) + unit.rows.first;
  const int row = first_row_of_warp<SumsShape<T, mode>::kM>() + 16 * m;
  return pair_sums(own, unit.numbers, first, row, unit.rows.count, others);
}

// What kernel functions are of: squared distances, and their tangents.
template <class T, PairMode mode>
struct DistancePairs {
  static constexpr bool kOfProducts = false;
  const SumsArguments& a;
  const SumsUnit& unit;
  const SumsShared<T, mode>& shared;
  const LanePairs<T, mode>& pairs;

  template <class Kernel>
  WGK_INLINE T s(int m, int at) const {
    return argument_of<Kernel>(pairs.s[m][at / 4][at % 4],
                               own_pair_sums<mode>(a, unit, a.points.norms, m, shared.norms), at);
  }
  WGK_INLINE T along_s(int m, int at) const { return pairs.along_s[m][at / 4][at % 4]; }
  WGK_INLINE bool counts(int m, int at) const { return pairs.counted[m] >> at & 1; }
};

// And products of the points as they came. Under `diagonal` (i, i) is a pair of a tile like any other: both of its
// points are i, as both (i, j) and (j, i) are there.
template <class T, PairMode mode>
struct ProductPairs {
  static constexpr bool kOfProducts = true;
  const LanePairs<T, mode>& pairs;
  PairSums<T> shifts[SumsShape<T, mode>::kM], along_shifts[SumsShape<T, mode>::kM];
  uint32_t counted[SumsShape<T, mode>::kM];

  template <class Kernel>
  WGK_INLINE T s(int m, int at) const {
    return argument_of<Kernel>(pairs.s[m][at / 4][at % 4], shifts[m], at);
  }
  WGK_INLINE T along_s(int m, int at) const { return pairs.along_s[m][at / 4][at % 4] + along_shifts[m](at); }
  WGK_INLINE bool counts(int m, int at) const { return counted[m] >> at & 1; }
};

// One component of the mixture on what a lane holds: adds to w, and to sums [2] for each row, of k and of k_t.
template <PairMode mode, bool has_theta, class T, class Kernel, class Pairs, int kW>
WGK_INLINE void add_component(const Kernel& kernel, const Pairs& pairs, T weight, T along_theta, T (&w)[kW][4],
                              T (&along_w)[kW][4], T (&sums)[2][2 * SumsShape<T, mode>::kM]) {
  constexpr int kM = SumsShape<T, mode>::kM, kN = SumsShape<T, mode>::kN;
#pragma unroll
  for (int m = 0; m < kM; ++m) {
#pragma unroll
    for (int at = 0; at < 4 * kN; ++at) {
      const int n = at / 4, e = at % 4;
      const bool counts = pairs.counts(m, at);
      const auto terms = kernel(pairs.template s<Kernel>(m, at));
      T value = terms.k, theta = terms.k_t;
      if constexpr (mode == PairMode::tangents) {
        const T along_s = pairs.along_s(m, at);
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

// All components of distances, or of products: adds to w, and the sums, times `factor`, to those of the block.
template <PairMode mode, bool has_theta, class T, class Pairs, int kW>
WGK_INLINE void evaluate_tile(const SumsArguments& a, bool same_set, double factor, const SumsShared<T, mode>& shared,
                              const Pairs& pairs, T (&w)[kW][4], T (&along_w)[kW][4]) {
  constexpr int kM = SumsShape<T, mode>::kM;
  const int C = a.mixture.C;
  for (int c = 0; c < C; ++c) {
    if (is_of_products(a.mixture.kind(c)) != Pairs::kOfProducts) {
      continue;
    }
    T sums[2][2 * kM] = {};
    const int at = same_set ? c : C + c;
    const T weight = mode == PairMode::values ? T{0} : shared.weights[at];
    const T along_theta = mode == PairMode::tangents ? shared.along_thetas[c] : T{0};
    with_stored_kernel<Pairs::kOfProducts, T>(a.mixture.kind(c), shared.kernels + c, [&](const auto& kernel) {
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

// From the weights of kernels of products to those that are added to the weights of distances. As x = z + o,
//   sum_j w_ij x_j = 2 (t_i z_i - sum_j v_ij z_j) + e_i o, v = -w / 2, e_i = sum_j w_ij, t_i = sum_j v_ij + e_i / 2,
// which has the form of a gradient of distances but for e_i. A pair (i, i) counts in e_i alone, and so in t_i.
template <PairMode mode, class T, int kN>
WGK_INLINE void convert_weights(const ProductPairs<T, mode>& pairs, const SumsShared<T, mode>& shared, int set,
                                T (&w)[kN][4]) {
  T sums[2] = {};
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    T& v = w[at / 4][at % 4];
    sums[at % 4 / 2] += pairs.counts(0, at) ? v : T{0};
    v *= T{-0.5};
  }
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    const double sum = quad_sum(static_cast<double>(sums[k]));
    if (lane_in_group() == 0) {
      shared.product_sum(set, k) += sum;
    }
  }
}

// Kernels of products, as long as s are the products of centred points.
template <PairMode mode, bool has_theta, class T, int kW>
WGK_INLINE void evaluate_products(const SumsArguments& a, const SumsUnit& unit, const RowTile& columns, bool same_set,
                                  double factor, const SumsShared<T, mode>& shared, const LanePairs<T, mode>& pairs,
                                  T (&w)[kW][4], T (&along_w)[kW][4]) {
  using Shape = SumsShape<T, mode>;
  ProductPairs<T, mode> products{pairs, {}, {}, {}};
#pragma unroll
  for (int m = 0; m < Shape::kM; ++m) {
    products.shifts[m] = own_pair_sums<mode>(a, unit, a.points.shifts, m, shared.shifts);
    if constexpr (Shape::kTangents) {
      products.along_shifts[m] =
          own_pair_sums<mode>(a, unit, a.points.along_shifts, m, shared.shifts + Shape::kColumns);
    }
    const int row = first_row_of_warp<Shape::kM>() + 16 * m;
    products.counted[m] =
        a.diagonal ? counted_pairs<Shape::kN>(row, unit.rows.count, columns.count, kNoPair) : pairs.counted[m];
  }
  evaluate_tile<mode, has_theta>(a, same_set, factor, shared, products, w, along_w);
  if constexpr (mode != PairMode::values) {
    convert_weights(products, shared, 0, w);
    if constexpr (Shape::kTangents) {
      convert_weights(products, shared, 1, along_w);
    }
  }
}

template <class T, PairMode mode>
WGK_INLINE void count_pairs(const SumsUnit& unit, const RowTile& columns, LanePairs<T, mode>& pairs) {
  using Shape = SumsShape<T, mode>;
  const bool apart =
      columns.first >= unit.rows.first + Shape::kRows || columns.first + Shape::kColumns <= unit.rows.first;
  const bool whole = apart && columns.count == Shape::kColumns && unit.rows.count == Shape::kRows;
#pragma unroll
  for (int m = 0; m < Shape::kM; ++m) {
    const int row = first_row_of_warp<Shape::kM>() + 16 * m;
    pairs.counted[m] = whole ? ~0u : counted_pairs<Shape::kN>(row, unit.rows.count, columns.count,
                                                              unit.rows.first - columns.first);
  }
}

// Squared distances from products.
template <class T, PairMode mode>
WGK_INLINE void measure_tile(const SumsArguments& a, const SumsUnit& unit, const SumsShared<T, mode>& shared,
                             LanePairs<T, mode>& pairs) {
  using Shape = SumsShape<T, mode>;
#pragma unroll
  for (int m = 0; m < Shape::kM; ++m) {
    subtract_products(own_pair_sums<mode>(a, unit, a.points.norms, m, shared.norms), T{1}, pairs.s[m]);
    clamp_at_zero(pairs.s[m]);
    if constexpr (Shape::kTangents) {
      const auto sums = own_pair_sums<mode>(a, unit, a.points.along_norms, m, shared.norms + Shape::kColumns);
      subtract_products(sums, T{2}, pairs.along_s[m]);
    }
  }
}

}  // namespace wgk
