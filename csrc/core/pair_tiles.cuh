// A tile of points in shared memory, and the products of two tiles on tensor cores: what the warps of a block do with
// them. Letters g and t are those of mma.cuh.
#pragma once

#include "mixture.cuh"
#include "point_features.cuh"
#include "products.cuh"

namespace wgk {

constexpr int kPairWarps = 4, kPairThreads = 32 * kPairWarps;
constexpr int kQuads = kPairThreads / 4;  // four lanes hold the pieces of a row

WGK_INLINE int thread_in_block() { return static_cast<int>(threadIdx.x); }
WGK_INLINE int lane_group() { return thread_in_block() % 32 / 4; }
WGK_INLINE int lane_in_group() { return thread_in_block() % 4; }
// The first of the 16 kM rows of a tile that are this warp's.
template <int kM>
WGK_INLINE int first_row_of_warp() {
  return thread_in_block() / 32 * 16 * kM;
}

// A tile's features are read in chunks. S: what the tile holds.
template <class S>
constexpr int kFeatures = std::is_same_v<S, double> ? 32 : 64;
// Rows are a few numbers longer, against bank conflicts.
template <class S>
constexpr int kTileStride = kFeatures<S> + (sizeof(S) == 2 ? 8 : 4);

WGK_HOST_DEVICE inline int feature_chunks(int64_t stride, int features) {
  return stride == 0 ? 1 : static_cast<int>(ceil_div(stride, features));
}

// Shared memory for a tile of T, as a tile of what P multiplies, which is never wider.
template <class P>
WGK_INLINE typename P::Tile* tile_of(typename P::T* memory) {
  using S = typename P::Tile;
  static_assert(kTileStride<S> * sizeof(S) <= kTileStride<typename P::T> * sizeof(typename P::T));
  return reinterpret_cast<S*>(memory);
}

// The points that P multiplies.
template <class P>
WGK_INLINE const typename P::Tile* rows_of(const CentredPoints& p) {
  if constexpr (std::is_same_v<typename P::Tile, float>) {
    return p.rows;
  } else {
    return static_cast<const typename P::Tile*>(p.exact_rows);
  }
}

template <class T>
WGK_INLINE T product_of(const PointProducts& products, PairNumbers numbers, int64_t at) {
  if constexpr (std::is_same_v<T, double>) {
    return products.wide[at];
  } else {
    return (numbers == PairNumbers::exact ? products.exact : products.narrow)[at];
  }
}

// Features [d, d + width) of `count` points from row `first` on, and zeros up to kRows: [kRows, kTileStride].
template <class P, int kRows>
__device__ void load_points(const CentredPoints& p, int64_t b, int64_t first, int count, int64_t d, int width,
                            typename P::Tile* tile) {
  using S = typename P::Tile;
  constexpr bool kIsWide = std::is_same_v<S, double>;
  constexpr int V = kIsWide ? 1 : kPackOf<S>, kPacks = kFeatures<S> / V;
#pragma unroll(kIsWide ? 1 : 4)
  for (int k = thread_in_block(); k < kRows * kPacks; k += kPairThreads) {
    const int row = k / kPacks, at = k % kPacks * V;
    if (at >= width) {
      continue;
    }
    if constexpr (kIsWide) {
      tile[row * kTileStride<S> + at] = row < count ? wide_feature(p, b, first + row, d + at) : 0;
    } else {
      const S* from = rows_of<P>(p) + (b * (p.N + p.M) + first + row) * p.stride + d + at;
      auto* to = reinterpret_cast<Pack<S, V>*>(tile + row * kTileStride<S> + at);
      *to = row < count ? load_pack<V>(from) : Pack<S, V>{};
    }
  }
}

// sums += rows_i rows_j^T over `width` features; rows_i are the 16 kM rows of this warp.
template <class P, int kM, int kN>
WGK_INLINE void add_dots(const typename P::Tile* rows_i, const typename P::Tile* rows_j, int width,
                         typename P::T (&sums)[kM][kN][4]) {
  using S = typename P::Tile;
  using Piece = decltype(P::piece(rows_i));
  constexpr int kStride = kTileStride<S>, kNext = 4 * P::kIn;
  const int g = lane_group(), t = lane_in_group();
#pragma unroll 1
  for (int d = 0; d < width; d += P::kStep) {
    decltype(P::left({Piece{}, Piece{}, Piece{}, Piece{}})) a[kM];
#pragma unroll
    for (int m = 0; m < kM; ++m) {
      const S* row = rows_i + (16 * m + g) * kStride + d + t * P::kIn;
      const S* below = row + 8 * kStride;
      a[m] = P::left({P::piece(row), P::piece(below), P::piece(row + kNext), P::piece(below + kNext)});
    }
#pragma unroll
    for (int n = 0; n < kN; ++n) {
      const S* row = rows_j + (8 * n + g) * kStride + d + t * P::kIn;
      const auto b = P::right({P::piece(row), P::piece(row + kNext)});
#pragma unroll
      for (int m = 0; m < kM; ++m) {
        P::add(sums[m][n], a[m], b);
      }
    }
  }
}

// sums += w rows, for w [16, 8 kN] as add_dots leaves it and rows [8 kN, width]; W: P::Weighted or P::Wide. Products
// add up over rows in any order: here each lane takes, as its columns t and t + 4 of w, the columns 2 t and 2 t + 1
// that it holds.
template <class W, int kN, int kF>
WGK_INLINE void add_weighted(const typename W::T (&w)[kN][4], const typename W::Tile* rows, int width,
                             typename W::T (&sums)[kF][4]) {
  constexpr int kStride = kTileStride<typename W::Tile>;
  const int g = lane_group(), t = lane_in_group();
#pragma unroll
  for (int n = 0; n < kN; ++n) {
    const auto a = W::left({w[n][0], w[n][2], w[n][1], w[n][3]});
    const typename W::Tile* row = rows + (8 * n + 2 * t) * kStride + g;
#pragma unroll
    for (int f = 0; f < kF; ++f) {
      if (8 * f < width) {
        W::add(sums[f], a, W::right({row[8 * f], row[kStride + 8 * f]}));
      }
    }
  }
}

// Calls f with the way to multiply points. What else is done with a tile stands apart from that: it is long, and in
// kernels once.
template <class T, class F>
WGK_INLINE void with_products(const PairPoints& points, PairNumbers numbers, const F& f) {
  if constexpr (std::is_same_v<T, double>) {
    f(DoubleProducts{});
  } else if (numbers == PairNumbers::exact) {
    points.z.dtype == DType::bfloat16 ? f(HalfProducts<bfloat16>{}) : f(HalfProducts<float16>{});
  } else if (points.precision == MatmulPrecision::tf32) {
    f(Tf32Products{});
  } else {
    f(FloatProducts{});
  }
}

// The same for other numbers.
template <class T, class F>
WGK_INLINE void with_wide_products(const PairPoints& points, const F& f) {
  if constexpr (std::is_same_v<T, double>) {
    f(DoubleProducts{});
  } else if (points.precision == MatmulPrecision::tf32) {
    f(Tf32Products{});
  } else {
    f(FloatProducts{});
  }
}

}  // namespace wgk
