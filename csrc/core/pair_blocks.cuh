// What a block of threads of the pair kernels works on, and what its lanes hold of a tile of points against another.
#pragma once

#include "pair_tiles.cuh"

namespace wgk {

constexpr int kFlush = 8;  // tiles over which products are added up in float

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

// A number of a row and one of a column, added: for the pairs [16, 8 kN] of a warp, those of this lane.
template <class T>
struct PairSums {
  T own[2];
  const T* others;  // [8 kN] in shared memory

  WGK_INLINE T operator()(int at) const {
    return own[at % 4 / 2] + others[at / 4 * 8 + 2 * lane_in_group() + at % 2];
  }
};

// Own ones are from `first` on, of which this warp has the row-th and following of `count`.
template <class T>
WGK_INLINE PairSums<T> pair_sums(const PointProducts& own, PairNumbers numbers, int64_t first, int row, int count,
                                 const T* others) {
  PairSums<T> sums{{}, others};
#pragma unroll
  for (int k = 0; k < 2; ++k) {
    sums.own[k] = product_of<T>(own, numbers, first + min(row + lane_group() + 8 * k, count - 1));
  }
  return sums;
}

// v = times sums - 2 v, for products v of two sets of points and those of their points with themselves.
template <class T, int kN>
WGK_INLINE void subtract_products(const PairSums<T>& sums, T times, T (&v)[kN][4]) {
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    T& each = v[at / 4][at % 4];
    each = times * sums(at) - 2 * each;
  }
}

// What the kernel function is of: s is the product of two centred points and `sums` has shifts, or s is their squared
// distance and `sums` has norms. See kCoincident: differences of float norms are never that small, but 0.
template <class Kernel, class T>
WGK_INLINE T argument_of(T s, const PairSums<T>& sums, int at) {
  if constexpr (Kernel::kOfProducts) {
    return s + sums(at);
  } else if constexpr (Kernel::kOfRoot && std::is_same_v<T, double>) {
    return s <= kCoincident * sums(at) ? 0 : s;
  } else {
    return s;
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
