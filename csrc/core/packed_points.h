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
  void (*pack_points)(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows,
                      T* panels);
  void (*row_dots)(const T* a, const T* b, int64_t count, int64_t stride, T* out);
  void (*shifts)(const T* a, const double* b, double of, int64_t count, int64_t stride, bool add, double* out);
};
#define WGK_PACK_FUNCTIONS(isa, S, T)                                                                    \
  PackFunctions<S, T> {                                                                                  \
    WGK_PICK(isa, kLanes<T>), WGK_PICK(isa, add_rows<S>), WGK_PICK(isa, pack_points<S, T>),              \
        WGK_PICK(isa, tile_row_dots<T>), WGK_PICK(isa, tile_shifts<T>)                                   \
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
  int64_t tile_size, tiles, D, stride, width;
  Buffer<T> rows, panels;
  std::vector<double> origins;  // [B, width], the means

  // x: [B, N, D], y: [B, M, D]; a null one stands for zeros.
  template <class S>
  PackedPoints(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling,
               int64_t size, int64_t B, int64_t N, int64_t M, int64_t D, const S* x, const S* y)
      : tile_size(size),
        tiles(static_cast<int64_t>(tiling.size())),
        D(D),
        stride(packed_stride<T>(D, functions.lanes)),
        width(stride + 8),  // room for a whole vector behind the last feature
        rows(B * tiles * size * stride),
        panels(B * tiles * size * D),
        origins(B * width, 0.0) {
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
    parallel_for(run, B * tiles, 1 + (1 << 14) / (1 + size * D), [&](int64_t begin, int64_t end) {
      std::vector<S> zeros;
      for (int64_t k = begin; k < end; ++k) {
        const Tile& tile = tiling[k % tiles];
        const S* points = tile.of_y ? y : x;
        const int64_t first = tile.of_y ? k / tiles * M + tile.first - N : k / tiles * N + tile.first;
        if (points == nullptr) {
          zeros.resize(size * D);
        }
        functions.pack_points(points == nullptr ? zeros.data() : points + first * D, tile.count, D,
                              origin(k / tiles), stride, tile_rows(k), tile_panels(k));
      }
    });
  }

  // k counts the tiles of all problems.
  T* tile_rows(int64_t k) const { return rows.get() + k * tile_size * stride; }
  T* tile_panels(int64_t k) const { return panels.get() + k * tile_size * D; }
  const double* origin(int64_t b) const { return origins.data() + b * width; }
};

// a_i . b_i of all points, [B * tiles, tile_size].
template <class S, class T>
Buffer<T> packed_norms(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling,
                       int64_t B, const PackedPoints<T>& a, const PackedPoints<T>& b) {
  Buffer<T> norms(B * a.tiles * a.tile_size);
  parallel_for(run, B * a.tiles, 1 + (1 << 15) / (1 + a.tile_size * a.D), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      T* out = norms.get() + k * a.tile_size;
      functions.row_dots(a.tile_rows(k), b.tile_rows(k), tiling[k % a.tiles].count, a.stride, out);
      std::fill(out + tiling[k % a.tiles].count, out + a.tile_size, T{0});
    }
  });
  return norms;
}

inline double dot(const double* a, const double* b, int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; ++d) {
    sum += a[d] * b[d];
  }
  return sum;
}

// What makes x_i . x_j of centred points: z_i . z_j + shifts_i + shifts_j, where x = z + o; [B * tiles, tile_size].
// With directions u = v + p of the points, what does the same for the derivative of x_i . x_j along u.
template <class S, class T>
Buffer<T> packed_shifts(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling,
                        int64_t B, const PackedPoints<T>& z, const PackedPoints<T>* v = nullptr) {
  Buffer<T> shifts(B * z.tiles * z.tile_size);
  parallel_for(run, B * z.tiles, 1 + (1 << 15) / (1 + z.tile_size * z.D), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const double* o = z.origin(k / z.tiles);
      const int64_t count = tiling[k % z.tiles].count;
      double wide[kMostCells * kTile] = {};
      if (v == nullptr) {
        functions.shifts(z.tile_rows(k), o, dot(o, o, z.D) / 2, count, z.stride, false, wide);
      } else {
        const double* p = v->origin(k / z.tiles);
        functions.shifts(v->tile_rows(k), o, dot(o, p, z.D), count, z.stride, false, wide);
        functions.shifts(z.tile_rows(k), p, 0, count, z.stride, true, wide);
      }
      std::transform(wide, wide + z.tile_size, shifts.get() + k * z.tile_size, [](double each) { return static_cast<T>(each); });
    }
  });
  return shifts;
}

inline bool has_products(const KernelMixture& mixture) {
  return std::any_of(mixture.kinds, mixture.kinds + mixture.C,
                     [](int64_t kind) { return is_of_products(static_cast<KernelKind>(kind)); });
}

// Whether float has digits enough for all kernel functions of the mixture.
inline bool float_suffices(const PackedPoints<float>& points, const float* norms, int64_t B,
                           const KernelMixture& mixture) {
  for (int64_t b = 0; b < B; ++b) {
    PointSizes sizes{0, dot(points.origin(b), points.origin(b), points.D)};
    for (int64_t k = b * points.tiles * points.tile_size; k < (b + 1) * points.tiles * points.tile_size; ++k) {
      sizes.largest = std::max(sizes.largest, norms[k]);
    }
    for (int64_t c = 0; c < mixture.C; ++c) {
      if (!float_suffices(sizes, static_cast<KernelKind>(mixture.kinds[c]), mixture.thetas[c], mixture.shapes[c])) {
        return false;
      }
    }
  }
  return true;
}

}  // namespace wgk
