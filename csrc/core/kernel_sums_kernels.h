// One pair of tiles of kernel_sums: products, kernel functions, products. Compiled once per instruction set.
#include "simd.h"
#include "simd_math.h"
#include "kernel_functions.h"
#include "pair_tiles.h"
#include "pair_packing.h"
#include "pair_arguments.h"
#include "kernel_sums_components.h"

namespace wgk {
namespace WGK_ISA {

// The sums of the rows of w, and of its columns.
template <class T>
void add_row_and_column_sums(const T* w, int64_t stride, int64_t count_i, int64_t count_j, double* rows,
                             double* columns) {
  Vector<T> down[kTile / kLanes<T>] = {};
  for (int64_t i = 0; i < count_i; ++i) {
    Vector<T> across{};
    for (int64_t j = 0; j < count_j; j += kLanes<T>) {
      const Vector<T> v = load(w + i * stride + j);
      across += v;
      down[j / kLanes<T>] += v;
    }
    rows[i] += sum_lanes(across);
  }
  for (int64_t j = 0; j < count_j; j += kLanes<T>) {
    add_to(columns + j, down[j / kLanes<T>]);
  }
}

// Zeros behind the last row and column, as far as the products read.
template <class T>
void clear_edges(T* w, int64_t stride, int64_t count_i, int64_t count_j) {
  for (int64_t i = count_i; i < ceil_div(count_i, kBlockRows) * kBlockRows; ++i) {
    std::memset(w + i * stride, 0, ceil_div(count_j, kBlockRows) * kBlockRows * sizeof(T));
  }
  const int64_t begin = ceil_div(count_j, kLanes<T>) * kLanes<T>, end = ceil_div(count_j, kBlockRows) * kBlockRows;
  for (int64_t i = 0; begin < end && i < count_i; ++i) {
    std::memset(w + i * stride + begin, 0, (end - begin) * sizeof(T));
  }
}

// A cell of the pairs of two tiles: from the i-th point of one and the j-th of the other on.
struct Cell {
  int64_t i, j, count_i, count_j;
  bool itself;  // of the pairs of points with themselves
};

// Where the sums of the rows and columns of weights go; null where no gradient is wanted.
struct WeightSums {
  double *i, *j;
  double *products_i, *products_j;  // of kernels of products
};

// Makes one matrix of the weights of a cell, and sums its rows and columns.
// w: [.., stride] weights of kernels of distances, if there are; product_w: [kTile, kTile], those of products, or null.
template <class T>
void finish_weights(const Cell& cell, bool has_distances, const T* product_w, const WeightSums& sums, int64_t stride,
                    T* w) {
  double unused[kTile] = {};
  const auto of = [&](double* all, int64_t first) { return all == nullptr ? unused : all + first; };
  if (product_w != nullptr) {
    // sum_j w_j x_j of kernels of products is that of -2 (-w_j / 2) x_j: one product serves both.
    add_row_and_column_sums(product_w, kTile, cell.count_i, cell.count_j, of(sums.products_i, cell.i),
                            of(sums.products_j, cell.j));
    for (int64_t i = 0; i < cell.count_i; ++i) {
      for (int64_t j = 0; j < cell.count_j; j += kLanes<T>) {
        const Vector<T> half = load(product_w + i * kTile + j) / -2;
        T* at = w + i * stride + j;
        store(at, has_distances ? load(at) + half : half);
      }
    }
  }
  clear_edges(w, stride, cell.count_i, cell.count_j);
  add_row_and_column_sums(w, stride, cell.count_i, cell.count_j, of(sums.i, cell.i), of(sums.j, cell.j));
}

// One pair of tiles. Inner products come first, cell by cell they give way to weights, which then are multiplied.
template <PairMode mode, bool has_theta, class T>
class TileSweep {
 public:
  TileSweep(const KernelMixture& mixture, const PairTile<T>& i, const PairTile<T>& j, int64_t D, int64_t stride,
            bool diagonal, const double* weights, int64_t tile_size, T* workspace)
      : mixture_(mixture), i_(i), j_(j), D_(D), stride_(stride), diagonal_(diagonal), weights_(weights),
        tile_size_(tile_size), w_(workspace), along_w_(workspace + (kTangents ? tile_size * tile_size : 0)),
        half_(sums_half()) {}

  // sums, theta_sums: [C], added to.
  void run(WideSum* sums, WideSum* theta_sums) {
    const bool half = mode == PairMode::values && half_;
    tile_dots(i_.rows, i_.panels, stride_, i_.count, j_.panels, j_.count, D_, false, tile_size_, w_, half);
    if constexpr (kTangents) {
      tile_dots(i_.along_rows, i_.along_panels, stride_, i_.count, j_.panels, j_.count, D_, false, tile_size_,
                along_w_);
      tile_dots(i_.rows, i_.panels, stride_, i_.count, j_.along_panels, j_.count, D_, true, tile_size_, along_w_);
    }
    for (int64_t i = 0; i < i_.count; i += kTile) {
      for (int64_t j = half ? i : 0; j < j_.count; j += kTile) {
        cell({i, j, std::min(kTile, i_.count - i), std::min(kTile, j_.count - j), same_tile() && i == j}, sums,
             theta_sums);
      }
    }
    if constexpr (kTangents) {
      weigh(along_w_, i_.rows, j_.rows);
      weigh(w_, i_.along_rows, j_.along_rows);
    } else if constexpr (mode == PairMode::gradients) {
      weigh(w_, i_.rows, j_.rows);
    }
  }

 private:
  static constexpr bool kTangents = mode == PairMode::tangents;
  static constexpr int64_t kSize = kTile * kTile;

  bool same_tile() const { return &i_ == &j_; }
  bool to_i() const { return i_.sums != nullptr; }
  bool to_j() const { return j_.sums != nullptr && !same_tile(); }

  // Of a tile with itself sums need every pair once, where none of a point with itself counts.
  bool sums_half() const {
    bool half = same_tile();
    for (int64_t c = 0; half && diagonal_ && c < mixture_.C; ++c) {
      half = !is_of_products(static_cast<KernelKind>(mixture_.kinds[c]));
    }
    return half;
  }

  void cell(const Cell& cell, WideSum* sums, WideSum* theta_sums) {
    alignas(64) T product_w[mode == PairMode::values ? 1 : kSize], along_product_w[kTangents ? kSize : 1];
    alignas(64) T dots[mode == PairMode::values ? 1 : kSize], along_dots[kTangents ? kSize : 1];
    T *w = w_ + cell.i * tile_size_ + cell.j, *along_w = along_w_ + cell.i * tile_size_ + cell.j;
    ComponentTask<T> task{};
    task.count_i = cell.count_i;
    task.count_j = cell.count_j;
    task.dots_stride = task.w_stride = tile_size_;
    task.dots = w;
    task.along_dots = along_w;
    if (mode != PairMode::values && mixture_.C > 1) {  // the first component would overwrite what the others need
      task.dots_stride = kTile;
      task.dots = copy(w, tile_size_, cell, dots);
      task.along_dots = kTangents ? copy(along_w, tile_size_, cell, along_dots) : nullptr;
    }
    bool has[2] = {false, false};  // components of distances, of products
    for (int64_t c = 0; c < mixture_.C; ++c) {
      const bool of_products = is_of_products(static_cast<KernelKind>(mixture_.kinds[c]));
      task.weighed = !cell.itself || (of_products && diagonal_) ? Counted::all : Counted::without_self;
      task.summed = cell.itself && half_ ? Counted::above_diagonal : task.weighed;
      task.norm_i = (of_products ? i_.shifts : i_.norms) + cell.i;
      task.norm_j = (of_products ? j_.shifts : j_.norms) + cell.j;
      if constexpr (kTangents) {
        task.along_norm_i = (of_products ? i_.along_shifts : i_.along_norms) + cell.i;
        task.along_norm_j = (of_products ? j_.along_shifts : j_.along_norms) + cell.j;
      }
      task.w = of_products ? product_w : w;
      task.along_w = of_products ? along_product_w : along_w;
      task.w_stride = of_products ? kTile : tile_size_;
      task.first = !has[of_products];
      has[of_products] = true;
      task.weight = static_cast<T>(mode == PairMode::values ? 0 : (same_set() ? 2 : 1) * weights_[c]);
      task.along_theta = static_cast<T>(kTangents ? mixture_.along_thetas[c] : 0);
      const TileSums found = component_tile<mode, has_theta>(mixture_, c, task);
      // A block of one set with itself counts each pair twice; a whole tile with itself has both already.
      const double twice = same_set() && (!same_tile() || half_) ? 2 : 1;
      if (!half_ || cell.j >= cell.i) {
        sums[c].add(twice * found.k);
        theta_sums[c].add(twice * found.theta);
      }
    }
    if constexpr (kTangents) {
      finish_weights(cell, has[0], has[1] ? along_product_w : nullptr, sums_of(false), tile_size_, along_w);
    }
    if constexpr (mode != PairMode::values) {
      finish_weights(cell, has[0], has[1] ? product_w : nullptr, sums_of(kTangents), tile_size_, w);
    }
  }

  // The pairs' inner products, before they give way.
  static const T* copy(const T* from, int64_t stride, const Cell& cell, T* to) {
    for (int64_t i = 0; i < cell.count_i; ++i) {
      for (int64_t j = 0; j < cell.count_j; j += kLanes<T>) {
        store(to + i * kTile + j, load(from + i * stride + j));
      }
    }
    return to;
  }

  bool same_set() const { return i_.of_y == j_.of_y; }

  // along: of the weights of the directions u.
  WeightSums sums_of(bool along) const {
    const auto of = [&](double* sums, bool wanted) { return wanted ? sums : nullptr; };
    return {of(along ? i_.along_w_sums : i_.w_sums, to_i()), of(along ? j_.along_w_sums : j_.w_sums, to_j()),
            of(along ? i_.along_product_sums : i_.product_sums, to_i()),
            of(along ? j_.along_product_sums : j_.product_sums, to_j())};
  }

  // Adds the weights' part to the gradients of both tiles: sum_j w_ij z_j to i, and sum_i w_ij z_i to j.
  void weigh(const T* w, const T* rows_i, const T* rows_j) {
    if (to_i()) {
      tile_weigh<false>(w, tile_size_, i_.count, j_.count, rows_j, stride_, i_.sums);
    }
    if (to_j()) {
      tile_weigh<true>(w, tile_size_, j_.count, i_.count, rows_i, stride_, j_.sums);
    }
  }

  const KernelMixture& mixture_;
  const PairTile<T>&i_, &j_;
  int64_t D_, stride_;
  bool diagonal_;
  const double* weights_;
  int64_t tile_size_;
  T *w_, *along_w_;
  bool half_;
};

// sums, theta_sums: [C], added to. diagonal: kernels of products count the pairs of a point with itself, whose sums
// those of distances have without looking at the points. workspace: [tile_size, tile_size], two of them for tangents.
template <PairMode mode, bool has_theta, class T>
void sweep_tiles(const KernelMixture& mixture, const PairTile<T>& i, const PairTile<T>& j, int64_t D, int64_t stride,
                 bool diagonal, const double* weights, int64_t tile_size, T* workspace, WideSum* sums,
                 WideSum* theta_sums) {
  TileSweep<mode, has_theta, T>(mixture, i, j, D, stride, diagonal, weights, tile_size, workspace)
      .run(sums, theta_sums);
}

// The gradient by `count` points from the sums of sweep_tiles, rounded once: out [count, D].
// origin, along_origin: the means taken off the points and directions.
template <class T, class G>
void write_gradient(const PairTile<T>& tile, int64_t D, int64_t stride, bool tangent, const double* origin,
                    const double* along_origin, G* out) {
  const bool products = tile.product_sums != nullptr;
  for (int64_t i = 0; D > 0 && i < tile.count; ++i) {  // without features there are no sums
    const double w = tile.w_sums[i], along_w = tangent ? tile.along_w_sums[i] : 0.0;
    const double e = products ? tile.product_sums[i] : 0.0;
    const double along_e = products && tangent ? tile.along_product_sums[i] : 0.0;
    const T* along_rows = tangent ? tile.along_rows : tile.rows;
    for (int64_t d = 0; d < D; d += kDoubles) {
      const int64_t at = i * stride + d;
      const vdouble row = load_doubles(tile.rows + at), along_row = load_doubles(along_rows + at);
      vdouble value = 2 * (w * row + along_w * along_row - load(tile.sums + at));
      if (products) {
        value += e * (row + load(origin + d));
        value += tangent ? along_e * (along_row + load(along_origin + d)) : vdouble{};
      }
      Compute<G> lanes[kLanes<G>] = {};
      for (int k = 0; k < kDoubles; ++k) {
        lanes[k] = static_cast<Compute<G>>(value[k]);
      }
      G rounded[kLanes<G>];
      store(rounded, load(lanes));
      std::memcpy(out + i * D + d, rounded, std::min<int64_t>(kDoubles, D - d) * sizeof(G));
    }
  }
}

// The kernel function of distances and its derivatives by theta at distance 0, where a point meets itself.
inline void terms_at_zero(const KernelMixture& mixture, int64_t c, double& k, double& k_t, double& k_tt) {
  with_component<double>(mixture, c, [&](const auto& kernel) __attribute__((always_inline)) {
    const KernelTerms<vdouble> terms = kernel(vdouble{});
    k = terms.k[0];
    k_t = terms.k_t[0];
    k_tt = terms.k_tt[0];
  });
}

}  // namespace WGK_ISA
}  // namespace wgk
