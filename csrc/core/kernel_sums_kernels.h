// One pair of tiles of kernel_sums: products, kernel functions, products. Compiled once per instruction set.
#include "simd.h"
#include "simd_math.h"
#include "kernel_functions.h"
#include "pair_tiles.h"
#include "pair_arguments.h"

namespace wgk {
namespace WGK_ISA {

// All ones for the lanes that hold a pair to be counted: columns j + lane below count, and not `self`.
template <class T>
WGK_INLINE auto counted_lanes(int64_t j, int64_t count, int64_t self) {
  using Bits = vec<typename FloatBits<T>::Bits, kLanes<T>>;
  Bits lane;
  for (int k = 0; k < kLanes<T>; ++k) {
    lane[k] = k;
  }
  using Bit = typename FloatBits<T>::Bits;
  return (lane < static_cast<Bit>(count - j)) & (lane != static_cast<Bit>(self - j));
}

// One component of the mixture on one tile.
template <class T>
struct ComponentTask {
  int64_t count_i, count_j;
  bool without_self;      // i and j are one tile, of which pairs of a point with itself do not count
  const T* norm_i;        // |z_i|^2, or the shifts of kernels of products
  const T* norm_j;
  const T* dots;          // [kTile, kTile] z_i . z_j
  const T* along_norm_i;  // z_i . u_i, or the shifts along u, for tangents
  const T* along_norm_j;
  const T* along_dots;    // u_i . z_j + z_i . u_j
  T weight, along_theta;
  bool first;             // writes w instead of adding to it
  T* w;                   // [kTile, kTile] sum over components of weight * dk/ds
  T* along_w;             // and its derivative along u and theta's direction
};

struct TileSums {
  double k, theta;  // of the kernel function and of its derivative by theta, or of their tangents
};

template <PairMode mode, bool has_theta, bool masked, class T, class K>
WGK_INLINE TileSums component_rows(const K& kernel, const ComponentTask<T>& shared) {
  using V = Vector<T>;
  constexpr int kStep = kLanes<T>;
  const ComponentTask<T> task = shared;  // a copy that no store can be thought to change
  vdouble total[2] = {}, theta_total[2] = {};
  for (int64_t i = 0; i < task.count_i; ++i) {
    V sum{}, theta_sum{};
    for (int64_t j = 0; j < task.count_j; j += kStep) {
      const int64_t at = i * kTile + j;
      const auto keep = [&](V v) __attribute__((always_inline)) {
        if constexpr (masked) {
          return counted_lanes<T>(j, task.count_j, task.without_self ? i : -1) ? v : V{};
        } else {
          return v;
        }
      };
      const V norms = task.norm_i[i] + load(task.norm_j + j);
      const KernelTerms<V> terms = kernel(pair_argument<K>(load(task.dots + at), norms));
      const auto put = [&](T* out, V v) __attribute__((always_inline)) {
        store(out + at, keep(task.first ? task.weight * v : fma(splat<V>(task.weight), v, load(out + at))));
      };
      if constexpr (mode == PairMode::tangents) {
        const V along_norms = task.along_norm_i[i] + load(task.along_norm_j + j);
        const V along_dots = load(task.along_dots + at);
        const V along_s = K::kOfProducts ? along_norms + along_dots : 2 * (along_norms - along_dots);
        const V along_t = splat<V>(task.along_theta);
        sum += keep(fma(terms.k_s, along_s, terms.k_t * along_t));
        put(task.w, terms.k_s);
        put(task.along_w, fma(terms.k_ss, along_s, terms.k_st * along_t));
        if constexpr (has_theta) {
          theta_sum += keep(fma(terms.k_st, along_s, terms.k_tt * along_t));
        }
      } else {
        sum += keep(terms.k);
        if constexpr (mode == PairMode::gradients) {
          put(task.w, terms.k_s);
        }
        if constexpr (has_theta) {
          theta_sum += keep(terms.k_t);
        }
      }
    }
    widen_to(total, sum);
    if constexpr (has_theta) {
      widen_to(theta_total, theta_sum);
    }
  }
  return {sum_lanes(total[0] + total[1]), sum_lanes(theta_total[0] + theta_total[1])};
}

template <PairMode mode, bool has_theta, class T>
TileSums component_tile(const KernelMixture& mixture, int64_t c, const ComponentTask<T>& task) {
  // Masks cost little beside double and the derivatives by theta; two versions of everything cost the compiler much.
  constexpr bool kAlwaysMasked = has_theta || std::is_same_v<T, double>;
  return with_component<T>(mixture, c, [&](const auto& kernel) __attribute__((always_inline)) {
    if (kAlwaysMasked || task.without_self || task.count_j % kLanes<T> != 0) {
      return component_rows<mode, has_theta, true>(kernel, task);
    }
    return component_rows<mode, has_theta, kAlwaysMasked>(kernel, task);
  });
}

// The sums of the rows of w, and of its columns.
template <class T>
void add_row_and_column_sums(const T* w, int64_t count_i, int64_t count_j, double* rows, double* columns) {
  Vector<T> down[kTile / kLanes<T>] = {};
  for (int64_t i = 0; i < count_i; ++i) {
    Vector<T> across{};
    for (int64_t j = 0; j < count_j; j += kLanes<T>) {
      const Vector<T> v = load(w + i * kTile + j);
      across += v;
      down[j / kLanes<T>] += v;
    }
    vdouble wide[2] = {};
    widen_to(wide, across);
    rows[i] += sum_lanes(wide[0] + wide[1]);
  }
  for (int64_t j = 0; j < count_j; j += kLanes<T>) {
    add_to(columns + j, down[j / kLanes<T>]);
  }
}

// Zeros behind the last row and column, as far as the products read.
template <class T>
void clear_edges(T* w, int64_t count_i, int64_t count_j) {
  for (int64_t i = count_i; i < ceil_div(count_i, kBlockRows) * kBlockRows; ++i) {
    std::memset(w + i * kTile, 0, kTile * sizeof(T));
  }
  const int64_t begin = ceil_div(count_j, kLanes<T>) * kLanes<T>, end = ceil_div(count_j, kBlockRows) * kBlockRows;
  for (int64_t i = 0; begin < end && i < count_i; ++i) {
    std::memset(w + i * kTile + begin, 0, (end - begin) * sizeof(T));
  }
}

// Weights of one tile of pairs, and where the sums of their rows and columns go.
template <class T>
struct WeightTile {
  T* of_distances;         // [kTile, kTile] of kernels of distances; those of products join them
  T* of_products;          // the same of kernels of products, or null
  bool has_distances;
  const T* rows_i;         // what is weighed, [kTile, stride]
  const T* rows_j;
  double* w_sums_i;
  double* w_sums_j;
  double* product_sums_i;
  double* product_sums_j;
};

// sum_j w_j x_j of kernels of products is that of -2 (-w_j / 2) x_j: one product serves both.
template <class T>
void join_products(const WeightTile<T>& tile, int64_t count_i, int64_t count_j) {
  add_row_and_column_sums(tile.of_products, count_i, count_j, tile.product_sums_i, tile.product_sums_j);
  for (int64_t i = 0; i < count_i; ++i) {
    for (int64_t j = 0; j < count_j; j += kLanes<T>) {
      const int64_t at = i * kTile + j;
      const Vector<T> half = load(tile.of_products + at) / -2;
      store(tile.of_distances + at, tile.has_distances ? load(tile.of_distances + at) + half : half);
    }
  }
}

// Adds the weights' part to the gradients of both tiles: sum_j w_ij z_j to i, and sum_i w_ij z_i to j.
template <class T>
void weigh_tile(WeightTile<T> tile, const PairTile<T>& i, const PairTile<T>& j, int64_t stride) {
  double unused[kTile] = {};
  const bool to_i = i.sums != nullptr, to_j = j.sums != nullptr && &i != &j;
  if (!to_i) {
    tile.w_sums_i = tile.product_sums_i = unused;
  }
  if (!to_j) {
    tile.w_sums_j = tile.product_sums_j = unused;
  }
  if (tile.of_products != nullptr) {
    join_products(tile, i.count, j.count);
  }
  T* w = tile.of_distances;
  clear_edges(w, i.count, j.count);
  add_row_and_column_sums(w, i.count, j.count, tile.w_sums_i, tile.w_sums_j);
  if (to_i) {
    tile_weigh<false>(w, i.count, j.count, tile.rows_j, stride, i.sums);
  }
  if (to_j) {
    tile_weigh<true>(w, j.count, i.count, tile.rows_i, stride, j.sums);
  }
}

// sums, theta_sums: [C], added to. diagonal: kernels of products count the pairs of a point with itself, whose sums
// those of distances have without looking at the points.
template <PairMode mode, bool has_theta, class T>
void sweep_tiles(const KernelMixture& mixture, const PairTile<T>& i, const PairTile<T>& j, int64_t D, int64_t stride,
                 bool diagonal, const double* weights, double* sums, double* theta_sums) {
  constexpr bool kTangents = mode == PairMode::tangents;
  constexpr int64_t kSize = kTile * kTile, kWeights = mode == PairMode::values ? 1 : kSize;
  alignas(64) T dots[kSize], w[kWeights], product_w[kWeights];
  constexpr int64_t kAlong = kTangents ? kSize : 1;
  alignas(64) T along_dots[kAlong], along_w[kAlong], along_product_w[kAlong];
  tile_dots(i.rows, stride, i.count, j.panels, j.count, D, false, dots);
  if constexpr (kTangents) {
    tile_dots(i.along_rows, stride, i.count, j.panels, j.count, D, false, along_dots);
    tile_dots(i.rows, stride, i.count, j.along_panels, j.count, D, true, along_dots);
  }
  // A block of one set with itself counts each pair twice; a tile with itself has both already.
  const bool same_set = i.of_y == j.of_y, same_tile = &i == &j;
  const double twice = same_set && !same_tile ? 2 : 1;
  bool has[2] = {false, false};  // components of distances, of products
  for (int64_t c = 0; c < mixture.C; ++c) {
    const bool of_products = is_of_products(static_cast<KernelKind>(mixture.kinds[c]));
    ComponentTask<T> task{i.count, j.count, same_tile && !(of_products && diagonal), i.norms, j.norms, dots,
                          i.along_norms, j.along_norms, along_dots, 0, 0, !has[of_products], w, along_w};
    if (of_products) {
      task.norm_i = i.shifts;
      task.norm_j = j.shifts;
      task.along_norm_i = i.along_shifts;
      task.along_norm_j = j.along_shifts;
      task.w = product_w;
      task.along_w = along_product_w;
    }
    has[of_products] = true;
    task.weight = static_cast<T>(mode == PairMode::values ? 0 : (same_set ? 2 : 1) * weights[c]);
    task.along_theta = static_cast<T>(kTangents ? mixture.along_thetas[c] : 0);
    const TileSums tile = component_tile<mode, has_theta>(mixture, c, task);
    sums[c] += twice * tile.k;
    theta_sums[c] += twice * tile.theta;
  }
  if constexpr (mode != PairMode::values) {
    if (i.sums != nullptr || j.sums != nullptr) {
      WeightTile<T> tile{w, has[1] ? product_w : nullptr, has[0], i.rows, j.rows, i.w_sums, j.w_sums,
                         i.product_sums, j.product_sums};
      if constexpr (kTangents) {
        WeightTile<T> along{along_w, has[1] ? along_product_w : nullptr, has[0], i.rows, j.rows, i.w_sums, j.w_sums,
                            i.product_sums, j.product_sums};
        weigh_tile(along, i, j, stride);
        tile.rows_i = i.along_rows;
        tile.rows_j = j.along_rows;
        tile.w_sums_i = i.along_w_sums;
        tile.w_sums_j = j.along_w_sums;
        tile.product_sums_i = i.along_product_sums;
        tile.product_sums_j = j.along_product_sums;
      }
      weigh_tile(tile, i, j, stride);
    }
  }
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
