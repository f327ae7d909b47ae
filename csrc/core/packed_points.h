// B sets of points as packed tiles, less the mean of each set (distances do not change under a shift, and far from the
// origin they drown in the squares of the mean).
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "pair_schedule.h"

namespace wgk {

// The functions of pair_tiles.h for one instruction set. S is the points' type, T the one they are computed in.
template <class S, class T>
struct PackFunctions {
  int64_t lanes;  // of a vector of T
  void (*add_rows)(const S* points, int64_t count, int64_t D, double* sums);
  void (*pack_rows)(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows);
  void (*pack_panels)(const T* rows, int64_t count, int64_t stride, int64_t D, T* panels);
  void (*row_dots)(const T* a, const T* b, int64_t count, int64_t stride, T* out);
};
#define WGK_PACK_FUNCTIONS(isa, S, T)                                                                    \
  PackFunctions<S, T> {                                                                                  \
    WGK_PICK(isa, kLanes<T>), WGK_PICK(isa, add_rows<S>), WGK_PICK(isa, pack_rows<S, T>),                \
        WGK_PICK(isa, pack_panels<T>), WGK_PICK(isa, tile_row_dots<T>)                                   \
  }

// Elements from one packed point to the next: whole vectors, and an odd number of cache lines where rows are long, so
// that neighbouring points do not fall on the same few sets of a cache.
template <class T>
int64_t packed_stride(int64_t D, int64_t lanes) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t stride = ceil_div(D, lanes) * lanes, lines = stride / kLine;
  return stride % kLine == 0 && lines >= 8 && lines % 2 == 0 ? stride + kLine : stride;
}

template <class T>
struct PackedPoints {
  int64_t tiles, D, stride;
  Buffer<T> rows, panels;

  // x: [B, N, D], y: [B, M, D]; a null one stands for zeros.
  template <class S>
  PackedPoints(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling, int64_t B,
               int64_t N, int64_t M, int64_t D, const S* x, const S* y)
      : tiles(static_cast<int64_t>(tiling.size())),
        D(D),
        stride(packed_stride<T>(D, functions.lanes)),
        rows(B * tiles * kTile * stride),
        panels(B * tiles * kTile * D) {
    const int64_t width = stride + 8;  // room for a whole vector behind the last feature
    std::vector<double> origins(B * width, 0.0);
    parallel_for(run, B, 1 + (1 << 16) / (1 + (N + M) * D), [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        double* origin = origins.data() + b * width;
        x != nullptr ? functions.add_rows(x + b * N * D, N, D, origin) : void();
        y != nullptr ? functions.add_rows(y + b * M * D, M, D, origin) : void();
        for (int64_t d = 0; d < D; ++d) {
          origin[d] /= static_cast<double>(N + M);
        }
      }
    });
    parallel_for(run, B * tiles, 1 + (1 << 14) / (1 + kTile * D), [&](int64_t begin, int64_t end) {
      std::vector<S> zeros;
      for (int64_t k = begin; k < end; ++k) {
        const Tile& tile = tiling[k % tiles];
        const S* points = tile.of_y ? y : x;
        const int64_t first = tile.of_y ? k / tiles * M + tile.first - N : k / tiles * N + tile.first;
        if (points == nullptr) {
          zeros.resize(kTile * D);
        }
        functions.pack_rows(points == nullptr ? zeros.data() : points + first * D, tile.count, D,
                            origins.data() + k / tiles * width, stride, tile_rows(k));
        functions.pack_panels(tile_rows(k), tile.count, stride, D, tile_panels(k));
      }
    });
  }

  // k counts the tiles of all problems.
  T* tile_rows(int64_t k) const { return rows.get() + k * kTile * stride; }
  T* tile_panels(int64_t k) const { return panels.get() + k * kTile * D; }
};

// a_i . b_i of all points, [B * tiles, kTile].
template <class S, class T>
Buffer<T> packed_norms(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling,
                       int64_t B, const PackedPoints<T>& a, const PackedPoints<T>& b) {
  Buffer<T> norms(B * a.tiles * kTile);
  parallel_for(run, B * a.tiles, 1 + (1 << 15) / (1 + kTile * a.D), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      T* out = norms.get() + k * kTile;
      functions.row_dots(a.tile_rows(k), b.tile_rows(k), tiling[k % a.tiles].count, a.stride, out);
      std::fill(out + tiling[k % a.tiles].count, out + kTile, T{0});
    }
  });
  return norms;
}

// Whether squared distances in float keep enough digits for all kernel functions.
inline bool float_distances_suffice(const float* norms, int64_t count, const KernelMixture& mixture) {
  float largest = 0;
  for (int64_t k = 0; k < count; ++k) {
    largest = std::max(largest, norms[k]);
  }
  for (int64_t c = 0; c < mixture.C; ++c) {
    if (!float_distances_suffice(largest, static_cast<KernelKind>(mixture.kinds[c]), mixture.thetas[c])) {
      return false;
    }
  }
  return true;
}

}  // namespace wgk
