// B sets of points as packed tiles, less the mean of each set (distances do not change under a shift, and far from the
// origin they drown in the squares of the mean).
#pragma once

#include <algorithm>
#include <vector>

#include "buffer.h"
#include "pair_schedule.h"

namespace wgk {

// The functions of pair_packing.h for one instruction set. S is the points' type, T the one they are computed in.
template <class S, class T>
struct PackFunctions {
  int64_t lanes;          // of a vector of T
  bool left_from_panels;  // products take no rows
  void (*add_rows)(const S* points, int64_t count, int64_t stride, int64_t D, double* sums);
  void (*pack_points)(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows,
                      T* panels);
  void (*row_dots)(const T* a, const T* b, int64_t count, int64_t stride, T* out);
  void (*shifts)(const T* a, const double* b, double of, int64_t count, int64_t stride, bool add, double* out);
};
#define WGK_PACK_FUNCTIONS(isa, S, T)                                                                    \
  PackFunctions<S, T> {                                                                                  \
    WGK_PICK(isa, kLanes<T>), WGK_PICK(isa, kLeftFromPanels<T>), WGK_PICK(isa, add_rows<S>),             \
        WGK_PICK(isa, pack_points<S, T>), WGK_PICK(isa, tile_row_dots<T>), WGK_PICK(isa, tile_shifts<T>) \
  }

// Elements from one packed point to the next: whole vectors, and an odd number of cache lines where rows are long, so
// that neighbouring points do not fall on the same few sets of a cache.
template <class T>
int64_t packed_stride(int64_t D, int64_t lanes) {
  constexpr int64_t kLine = 64 / sizeof(T);
  const int64_t stride = ceil_div(D, lanes) * lanes, lines = stride / kLine;
  return stride % kLine == 0 && lines >= 8 && lines % 2 == 0 ? stride + kLine : stride;
}

inline constexpr int64_t kOriginFeatures = 256;  // whose means one thread takes: whole vectors

inline double dot(const double* a, const double* b, int64_t D) {
  double sum = 0;
  for (int64_t d = 0; d < D; ++d) {
    sum += a[d] * b[d];
  }
  return sum;
}

template <class T>
struct PackedPoints {
  int64_t tile_size, tiles, D, stride, width;
  Buffer<T> rows, panels;       // rows: empty, where they are not kept
  Buffer<T> norms;              // [B * tiles, tile_size] z . z, or z . u
  Buffer<T> shifts;             // the same shape, if wanted: x_i . x_j = z_i . z_j + shifts_i + shifts_j for x = z + o,
                                // or what does that for its derivative along u + p, p being the mean of directions
  std::vector<double> origins;  // [B, width], the means

  // x: [B, N, D], y: [B, M, D]; a null one stands for zeros.
  // along: the points z whose directions u these are, both with their rows kept; null for points themselves.
  template <class S>
  PackedPoints(ParallelFor run, const PackFunctions<S, T>& functions, const std::vector<Tile>& tiling, int64_t size,
               int64_t B, int64_t N, int64_t M, int64_t D, const S* x, const S* y, bool keep_rows, bool with_shifts,
               const PackedPoints* along = nullptr)
      : tile_size(size),
        tiles(static_cast<int64_t>(tiling.size())),
        D(D),
        stride(packed_stride<T>(D, functions.lanes)),
        width(stride + 8),  // room for a whole vector behind the last feature
        rows(keep_rows ? B * tiles * size * stride : 0),
        panels(B * tiles * size * D),
        norms(B * tiles * size),
        shifts(with_shifts ? B * tiles * size : 0),
        origins(B * width, 0.0) {
    const int64_t blocks = ceil_div(D, kOriginFeatures), features = std::min(D, kOriginFeatures);
    parallel_for(run, B * blocks, 1 + (1 << 16) / (1 + (N + M) * features), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t b = k / blocks, first = k % blocks * kOriginFeatures, count = std::min(features, D - first);
        double* to = origins.data() + b * width + first;
        x != nullptr ? functions.add_rows(x + b * N * D + first, N, D, count, to) : void();
        y != nullptr ? functions.add_rows(y + b * M * D + first, M, D, count, to) : void();
        for (int64_t d = 0; d < count; ++d) {
          to[d] /= static_cast<double>(N + M);
        }
      }
    });
    parallel_for(run, B * tiles, 1 + (1 << 14) / (1 + size * D), [&](int64_t begin, int64_t end) {
      const Buffer<T> passing(keep_rows ? 0 : size * stride);
      std::vector<S> zeros;
      for (int64_t k = begin; k < end; ++k) {
        const Tile& tile = tiling[k % tiles];
        const S* points = tile.of_y ? y : x;
        const int64_t first = tile.of_y ? k / tiles * M + tile.first - N : k / tiles * N + tile.first;
        if (points == nullptr) {
          zeros.resize(size * D);
        }
        T* const to = keep_rows ? rows.get() + k * size * stride : passing.get();
        functions.pack_points(points == nullptr ? zeros.data() : points + first * D, tile.count, D,
                              origin(k / tiles), stride, to, tile_panels(k));
        describe_tile(functions, k, tile.count, to, along);
      }
    });
  }

  // k counts the tiles of all problems.
  const T* tile_rows(int64_t k) const { return rows.get() == nullptr ? nullptr : rows.get() + k * tile_size * stride; }
  T* tile_panels(int64_t k) const { return panels.get() + k * tile_size * D; }
  const T* tile_norms(int64_t k) const { return norms.get() + k * tile_size; }
  const T* tile_shifts(int64_t k) const { return shifts.get() == nullptr ? nullptr : shifts.get() + k * tile_size; }
  const double* origin(int64_t b) const { return origins.data() + b * width; }

 private:
  // While the tile's rows are in the cache.
  template <class S>
  void describe_tile(const PackFunctions<S, T>& functions, int64_t k, int64_t count, const T* of,
                     const PackedPoints* along) const {
    const PackedPoints& points = along == nullptr ? *this : *along;
    const T* const z = along == nullptr ? of : along->tile_rows(k);
    T* const squares = norms.get() + k * tile_size;
    functions.row_dots(z, of, count, stride, squares);
    std::fill(squares + count, squares + tile_size, T{0});
    if (shifts.get() == nullptr) {
      return;
    }
    const double *o = points.origin(k / tiles), *p = origin(k / tiles);
    double wide[kMostCells * kTile] = {};
    functions.shifts(of, o, along == nullptr ? dot(o, o, D) / 2 : dot(o, p, D), count, stride, false, wide);
    if (along != nullptr) {
      functions.shifts(z, p, 0, count, stride, true, wide);
    }
    std::transform(wide, wide + tile_size, shifts.get() + k * tile_size,
                   [](double each) { return static_cast<T>(each); });
  }
};

inline bool has_products(const KernelMixture& mixture) {
  return std::any_of(mixture.kinds, mixture.kinds + mixture.C,
                     [](int64_t kind) { return is_of_products(static_cast<KernelKind>(kind)); });
}

// Whether float has digits enough for all kernel functions of the mixture.
inline bool float_suffices(const PackedPoints<float>& points, int64_t B, const KernelMixture& mixture) {
  for (int64_t b = 0; b < B; ++b) {
    PointSizes sizes{0, dot(points.origin(b), points.origin(b), points.D)};
    for (int64_t k = b * points.tiles * points.tile_size; k < (b + 1) * points.tiles * points.tile_size; ++k) {
      sizes.largest = std::max(sizes.largest, points.norms.get()[k]);
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
