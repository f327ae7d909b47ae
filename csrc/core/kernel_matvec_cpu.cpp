#include "kernel_matvec.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "packed_points.h"

#define WGK_KERNELS "kernel_matvec_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr double kThreadWork = 1e6;  // multiplications below which a second thread costs more than it saves
constexpr int64_t kTasks = 16;       // enough to share out; fewer rows of tiles are cut across

// S is the points' type, T the one they are computed in, V the one of v and out.
template <class S, class T, class V>
class Product {
 public:
  Product(Isa isa, ParallelFor run, const KernelProduct& product, const KernelMixture& mixture)
      : isa_(isa), run_(run), p_(product), tiling_(tile_points(product)), functions_(WGK_PACK_FUNCTIONS(isa, S, T)),
        points_(run, functions_, tiling_, kTile, p_.B, p_.N, p_.M, p_.D, static_cast<const S*>(p_.x),
                static_cast<const S*>(p_.y), !functions_.left_from_panels, has_products(mixture)) {}

  bool is_exact_enough(const KernelMixture& mixture) const {
    if constexpr (std::is_same_v<T, float>) {
      return float_suffices(points_, p_.B, mixture);
    }
    return true;
  }

  template <KernelTerm term>
  void multiply(const KernelMixture& mixture, const double* weights, V* out) {
    const auto multiply_tiles = WGK_PICK(isa_, multiply_tiles<term, T>);
    pack_columns();
    const int64_t parts = std::min(count() - rows_, ceil_div(kTasks, std::max<int64_t>(1, p_.B * rows_)));
    const int64_t tasks = p_.B * rows_ * parts, size = kTile * v_stride_;
    const Buffer<double> sums(tasks * size);
    const double work = kTile * std::min(kTile, p_.M) * (2.0 * p_.D + 2.0 * p_.P + 16.0 * mixture.C) *
                        static_cast<double>(count() - rows_) / std::max<int64_t>(1, parts);
    parallel_for(run_, tasks, static_cast<int64_t>(kThreadWork / std::max(work, 1.0)), [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t part = task % parts, t = task / parts % rows_, b = task / parts / rows_;
        std::fill_n(sums.get() + task * size, size, 0.0);
        for (int64_t u = part; u < count() - rows_; u += parts) {
          multiply_tiles(mixture, weights, tile(b, t), tile(b, rows_ + u), tiling_[t].first,
                         tiling_[rows_ + u].first - p_.N, p_.diagonal, p_.D, points_.stride,
                         columns_.get() + (b * (count() - rows_) + u) * size, v_stride_, sums.get() + task * size);
        }
      }
    });
    for (int64_t at = 0; at < p_.B * rows_ * kTile * p_.P; ++at) {
      const int64_t column = at % p_.P, r = at / p_.P % kTile, tile = at / p_.P / kTile, t = tile % rows_;
      if (r >= tiling_[t].count) {
        continue;
      }
      double sum = 0;
      for (int64_t part = 0; part < parts; ++part) {
        sum += sums.get()[(tile * parts + part) * size + r * v_stride_ + column];
      }
      const int64_t row = tile / rows_ * (p_.end - p_.begin) + tiling_[t].first - p_.begin + r;
      out[row * p_.P + column] = static_cast<V>(sum);
    }
  }

 private:
  int64_t count() const { return static_cast<int64_t>(tiling_.size()); }

  // The rows of x that are asked for, then all of y.
  static std::vector<Tile> tile_points(const KernelProduct& p) {
    std::vector<Tile> tiling;
    for (int64_t first = p.begin; first < p.end; first += kTile) {
      tiling.push_back({first, std::min(kTile, p.end - first), false});
    }
    for (int64_t first = 0; first < p.M; first += kTile) {
      tiling.push_back({p.N + first, std::min(kTile, p.M - first), true});
    }
    return tiling;
  }

  PairTile<T> tile(int64_t b, int64_t t) const {
    const int64_t k = b * count() + t;
    PairTile<T> packed{};
    packed.count = tiling_[t].count;
    packed.rows = points_.tile_rows(k);
    packed.panels = points_.tile_panels(k);
    packed.norms = points_.tile_norms(k);
    packed.shifts = points_.tile_shifts(k);
    return packed;
  }

  // v in tiles of rows, as the products read it.
  void pack_columns() {
    const int64_t tiles = count() - rows_, size = kTile * v_stride_;
    const std::vector<double> zeros(v_stride_ + 8, 0.0);
    const auto pack_rows = WGK_PICK(isa_, pack_rows<V, T>);
    columns_ = Buffer<T>(p_.B * tiles * size);
    parallel_for(run_, p_.B * tiles, 1 + (1 << 14) / (1 + size), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const Tile& tile = tiling_[rows_ + k % tiles];
        const V* v = static_cast<const V*>(p_.v) + (k / tiles * p_.M + tile.first - p_.N) * p_.P;
        pack_rows(v, tile.count, p_.P, zeros.data(), v_stride_, columns_.get() + k * size);
      }
    });
  }

  Isa isa_;
  ParallelFor run_;
  const KernelProduct& p_;
  std::vector<Tile> tiling_;
  PackFunctions<S, T> functions_;
  PackedPoints<T> points_;
  Buffer<T> columns_;
  int64_t rows_ = ceil_div(p_.end - p_.begin, kTile);
  int64_t v_stride_ = packed_stride<T>(p_.P, functions_.lanes);
};

template <class F>
void with_term(KernelTerm term, const F& f) {
  switch (term) {
    case KernelTerm::k_s:
      return f(std::integral_constant<KernelTerm, KernelTerm::k_s>());
    case KernelTerm::k_ss:
      return f(std::integral_constant<KernelTerm, KernelTerm::k_ss>());
    case KernelTerm::k_t:
      return f(std::integral_constant<KernelTerm, KernelTerm::k_t>());
    case KernelTerm::k_st:
      return f(std::integral_constant<KernelTerm, KernelTerm::k_st>());
    case KernelTerm::k_tt:
      return f(std::integral_constant<KernelTerm, KernelTerm::k_tt>());
    default:
      return f(std::integral_constant<KernelTerm, KernelTerm::k>());
  }
}

}  // namespace

void kernel_matvec(Isa isa, ParallelFor run, const KernelProduct& product, const KernelMixture& mixture,
                   const double* weights, void* out) {
  with_type(product.dtype, [&](auto type) {
    using S = decltype(type);
    using V = std::conditional_t<std::is_same_v<S, double>, double, float>;
    const auto multiply = [&](auto& computed) {
      with_term(product.term, [&](auto term) {
        computed.template multiply<decltype(term)::value>(mixture, weights, static_cast<V*>(out));
      });
    };
    if constexpr (!std::is_same_v<S, double>) {
      Product<S, float, V> in_float(isa, run, product, mixture);
      if (in_float.is_exact_enough(mixture)) {
        return multiply(in_float);
      }
    }
    Product<S, double, V> in_double(isa, run, product, mixture);
    multiply(in_double);
  });
}

}  // namespace wgk
