#include "kernel_sums.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <vector>

#include "packed_points.h"

#define WGK_KERNELS "kernel_sums_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kParts = 64;       // that values are summed in: enough to share out
constexpr double kThreadWork = 1e6;  // multiplications below which a second thread costs more than it saves

// Sums of gradients that leave the L2 cache between two tiles are read and written less often by larger tiles; but
// there must be tiles left to share out, and points to fill them. No number of threads goes in here: the same bits for
// any.
int64_t best_tile_size(const PointPairs& pairs, bool has_gradient) {
  constexpr int64_t kL2Cache = 1 << 21, kLeastFeatures = 64, kLeastTiles = 20;
  const int64_t points = pairs.B * (pairs.N + pairs.M), sums = points * pairs.D * sizeof(double);
  if (!has_gradient || pairs.D < kLeastFeatures || sums < kL2Cache) {
    return kTile;
  }
  const int64_t most = std::min(kMostCells, ceil_div(std::max(pairs.N, pairs.M), kTile));
  return kTile * std::clamp<int64_t>(points / (kLeastTiles * kTile), 1, std::max<int64_t>(1, most));
}

// Everything one call works on. S is the points' type, T the one they are computed in.
template <class S, class T>
class Sweep {
 public:
  Sweep(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture, const S* along_x,
        const S* along_y, bool tangent, const KernelGradients& gradients)
      : isa_(isa), run_(run), pairs_(pairs), gradients_(gradients),
        tile_size_(best_tile_size(pairs, gradients.any())),
        schedule_(pairs.N, pairs.M, pairs.begin, pairs.end, tile_size_), functions_(WGK_PACK_FUNCTIONS(isa, S, T)),
        points_(pack(static_cast<const S*>(pairs.x), static_cast<const S*>(pairs.y), has_products(mixture),
                     tangent || gradients.any())) {
    if (tangent) {
      along_.emplace(pack(along_x, along_y, has_products(mixture), true, &points_));
    }
  }

  bool is_exact_enough(const KernelMixture& mixture) const {
    if constexpr (std::is_same_v<T, float>) {
      return float_suffices(points_, pairs_.B, mixture);
    }
    return true;
  }

  template <PairMode mode, bool has_theta>
  void sweep(const KernelMixture& mixture, const double* weights, double* sums, double* theta_sums) {
    constexpr bool kValues = mode == PairMode::values;
    const auto sweep_tiles = WGK_PICK(isa_, sweep_tiles<mode, has_theta, T>);
    const int64_t B = pairs_.B, C = mixture.C;
    const int64_t parts = kValues ? std::min(kParts, schedule_.pairs_by_rows()) : schedule_.max_pairs();
    std::vector<WideSum> shares(B * parts * 6 * C);  // [B, part, block, (sums, theta_sums), C]
    const auto visit = [&](int64_t b, int64_t part, const TilePair& pair, T* workspace) {
      const PairTile<T> i = tile(b, pair.i), other = tile(b, pair.j);
      const PairTile<T>& j = pair.i == pair.j ? i : other;
      const int64_t block = i.of_y != j.of_y ? 2 : i.of_y ? 1 : 0;
      WideSum* share = shares.data() + ((b * parts + part) * 3 + block) * 2 * C;
      sweep_tiles(mixture, i, j, pairs_.D, points_.stride, pairs_.diagonal,
                  kValues ? nullptr : weights + (b * 3 + block) * C, tile_size_, workspace, share, share + C);
    };
    if constexpr (kValues) {
      visit_by_rows(mixture, parts, visit);
    } else {
      allocate_gradients();
      visit_by_rounds(mixture, mode == PairMode::tangents, visit);
    }
    add_shares(mixture, shares, parts, mode == PairMode::tangents, sums, theta_sums);
    if (!kValues) {
      with_type(gradients_.dtype, [&](auto type) { write_gradients<decltype(type)>(mode == PairMode::tangents); });
    }
  }

 private:
  int64_t tiles() const { return pairs_.B * schedule_.count(); }

  PackedPoints<T> pack(const S* x, const S* y, bool with_shifts, bool weighed,
                       const PackedPoints<T>* along = nullptr) const {
    return PackedPoints<T>(run_, functions_, schedule_.tiles(), tile_size_, pairs_.B, pairs_.N, pairs_.M, pairs_.D, x,
                           y, weighed || !functions_.left_from_panels, with_shifts, along);
  }

  // Pairs of tiles that a thread takes at least, where each takes `products` of all features.
  int64_t least_pairs(const KernelMixture& mixture, double products) const {
    const double points = static_cast<double>(std::min(tile_size_, std::max(pairs_.N, pairs_.M)));
    const double work = points * points * (products * pairs_.D + 32.0 * mixture.C);
    return static_cast<int64_t>(kThreadWork / std::max(work, 1.0));
  }

  // Calls visit(problem, part, pair, workspace) for all pairs, in `parts` parts that threads may take.
  template <class Visit>
  void visit_by_rows(const KernelMixture& mixture, int64_t parts, const Visit& visit) const {
    const std::vector<TileRun> runs = schedule_.parts_by_rows(parts);
    const int64_t pairs = std::max<int64_t>(1, schedule_.pairs_by_rows());
    parallel_for(run_, pairs_.B * parts, least_pairs(mixture, 2) * parts / pairs, [&](int64_t begin, int64_t end) {
      const Buffer<T> workspace(tile_size_ * tile_size_);
      for (int64_t k = begin; k < end; ++k) {
        TilePair pair = runs[k % parts].first;
        for (int64_t at = 0; at < runs[k % parts].count; ++at, pair = schedule_.next_by_rows(pair)) {
          visit(k / parts, k % parts, pair, workspace.get());
        }
      }
    });
  }

  // The same where pairs add to their tiles: round by round, parts being the pairs of a round.
  template <class Visit>
  void visit_by_rounds(const KernelMixture& mixture, bool tangent, const Visit& visit) const {
    const int64_t least = least_pairs(mixture, 6);
    for (int64_t round = 0; round < schedule_.rounds(); ++round) {
      const int64_t count = schedule_.pairs(round);
      parallel_for(run_, pairs_.B * count, least, [&](int64_t begin, int64_t end) {
        const Buffer<T> workspace((tangent ? 2 : 1) * tile_size_ * tile_size_);
        for (int64_t k = begin; k < end; ++k) {
          visit(k / count, k % count, schedule_.pair(round, k % count), workspace.get());
        }
      });
    }
  }

  bool has_gradient(const Tile& tile) const { return (tile.of_y ? gradients_.y : gradients_.x) != nullptr; }

  void allocate_gradients() {
    sums_ = Buffer<double>(tiles() * tile_size_ * points_.stride);
    w_sums_ = Buffer<double>(tiles() * tile_size_ * 4);
    std::fill_n(w_sums_.get(), tiles() * tile_size_ * 4, 0.0);
    parallel_for(run_, tiles(), 8, [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        if (has_gradient(schedule_.tiles()[k % schedule_.count()])) {
          // As far as whole blocks of rows reach.
          const int64_t rows = std::min(tile_size_, schedule_.tiles()[k % schedule_.count()].count + 8);
          std::fill_n(sums_.get() + k * tile_size_ * points_.stride, rows * points_.stride, 0.0);
        }
      }
    });
  }

  PairTile<T> tile(int64_t b, int64_t t) const {
    const int64_t k = b * schedule_.count() + t;
    const Tile& tile = schedule_.tiles()[t];
    PairTile<T> packed{};
    packed.count = tile.count;
    packed.of_y = tile.of_y;
    packed.rows = points_.tile_rows(k);
    packed.panels = points_.tile_panels(k);
    packed.norms = points_.tile_norms(k);
    packed.shifts = points_.tile_shifts(k);
    if (along_) {
      packed.along_rows = along_->tile_rows(k);
      packed.along_panels = along_->tile_panels(k);
      packed.along_norms = along_->tile_norms(k);
      packed.along_shifts = along_->tile_shifts(k);
    }
    if (has_gradient(tile) && sums_.get() != nullptr) {
      packed.sums = sums_.get() + k * tile_size_ * points_.stride;
      packed.w_sums = w_sums_.get() + k * tile_size_ * 4;
      packed.along_w_sums = packed.w_sums + tile_size_;
      if (packed.shifts != nullptr) {
        packed.product_sums = packed.w_sums + 2 * tile_size_;
        packed.along_product_sums = packed.w_sums + 3 * tile_size_;
      }
    }
    return packed;
  }

  // Adds up the shares in order, and the pairs of a point with itself.
  void add_shares(const KernelMixture& mixture, const std::vector<WideSum>& shares, int64_t parts, bool tangent,
                  double* sums, double* theta_sums) const {
    const int64_t C = mixture.C;
    const int64_t selves[3] = {std::max<int64_t>(0, std::min(pairs_.end, pairs_.N) - pairs_.begin),
                               std::max<int64_t>(0, pairs_.end - std::max(pairs_.begin, pairs_.N)), 0};
    for (int64_t at = 0; at < pairs_.B * 3 * C; ++at) {
      const int64_t c = at % C, block = at / C % 3, b = at / C / 3;
      double k = 0, k_t = 0, k_tt = 0;
      if (pairs_.diagonal && !is_of_products(static_cast<KernelKind>(mixture.kinds[c]))) {
        plain::terms_at_zero(mixture, c, k, k_t, k_tt);
      }
      const double along = tangent ? mixture.along_thetas[c] : 0;
      WideSum sum, theta_sum;
      sum.add(selves[block] * (tangent ? k_t * along : k));
      theta_sum.add(selves[block] * (tangent ? k_tt * along : k_t));
      for (int64_t part = 0; part < parts; ++part) {
        const WideSum* share = shares.data() + ((b * parts + part) * 3 + block) * 2 * C + c;
        sum.add(share[0]);
        theta_sum.add(share[C]);
      }
      sums[at] = sum.value();
      if (theta_sums != nullptr) {
        theta_sums[at] = theta_sum.value();
      }
    }
  }

  template <class G>
  void write_gradients(bool tangent) const {
    const auto write = WGK_PICK(isa_, write_gradient<T, G>);
    const int64_t N = pairs_.N, M = pairs_.M, D = pairs_.D;
    G* grad_x = static_cast<G*>(gradients_.x);
    G* grad_y = static_cast<G*>(gradients_.y);
    for (int64_t b = 0; b < pairs_.B; ++b) {  // rows before the range take part in no pair of it
      const int64_t before_x = std::min(N, pairs_.begin), before_y = std::max<int64_t>(0, pairs_.begin - N);
      grad_x != nullptr ? std::memset(grad_x + b * N * D, 0, before_x * D * sizeof(G)) : nullptr;
      grad_y != nullptr ? std::memset(grad_y + b * M * D, 0, before_y * D * sizeof(G)) : nullptr;
    }
    parallel_for(run_, tiles(), 1 + (1 << 14) / (1 + tile_size_ * D), [&](int64_t begin, int64_t end) {
      for (int64_t k = begin; k < end; ++k) {
        const int64_t b = k / schedule_.count();
        const Tile& t = schedule_.tiles()[k % schedule_.count()];
        if (has_gradient(t)) {
          G* out = t.of_y ? grad_y + (b * M + t.first - N) * D : grad_x + (b * N + t.first) * D;
          write(tile(b, k % schedule_.count()), D, points_.stride, tangent, points_.origin(b),
                along_ ? along_->origin(b) : nullptr, out);
        }
      }
    });
  }

  Isa isa_;
  ParallelFor run_;
  const PointPairs& pairs_;
  KernelGradients gradients_;
  int64_t tile_size_;
  PairSchedule schedule_;
  PackFunctions<S, T> functions_;
  PackedPoints<T> points_;
  std::optional<PackedPoints<T>> along_;
  Buffer<double> sums_, w_sums_;
};

// Calls f with a Sweep in float for everything but double, and in double where float has too few digits.
template <class F>
void with_sweep(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture, const void* along_x,
                const void* along_y, bool tangent, const KernelGradients& gradients, const F& f) {
  with_type(pairs.dtype, [&](auto type) {
    using S = decltype(type);
    const S* u = static_cast<const S*>(along_x);
    const S* v = static_cast<const S*>(along_y);
    if constexpr (!std::is_same_v<S, double>) {
      Sweep<S, float> sweep(isa, run, pairs, mixture, u, v, tangent, gradients);
      if (sweep.is_exact_enough(mixture)) {
        return f(sweep);
      }
    }
    Sweep<S, double> sweep(isa, run, pairs, mixture, u, v, tangent, gradients);
    f(sweep);
  });
}

}  // namespace

void kernel_sums(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture,
                 const double* weights, double* sums, double* theta_sums, const KernelGradients& gradients) {
  with_sweep(isa, run, pairs, mixture, nullptr, nullptr, false, gradients, [&](auto& sweep) {
    using Mode = PairMode;
    const bool has_theta = theta_sums != nullptr;
    if (gradients.any()) {
      has_theta ? sweep.template sweep<Mode::gradients, true>(mixture, weights, sums, theta_sums)
                : sweep.template sweep<Mode::gradients, false>(mixture, weights, sums, theta_sums);
    } else {
      has_theta ? sweep.template sweep<Mode::values, true>(mixture, weights, sums, theta_sums)
                : sweep.template sweep<Mode::values, false>(mixture, weights, sums, theta_sums);
    }
  });
}

void kernel_sums_tangent(Isa isa, ParallelFor run, const PointPairs& pairs, const KernelMixture& mixture,
                         const void* along_x, const void* along_y, const double* weights, double* sums,
                         double* theta_sums, const KernelGradients& gradients) {
  with_sweep(isa, run, pairs, mixture, along_x, along_y, true, gradients, [&](auto& sweep) {
    using Mode = PairMode;
    theta_sums != nullptr ? sweep.template sweep<Mode::tangents, true>(mixture, weights, sums, theta_sums)
                          : sweep.template sweep<Mode::tangents, false>(mixture, weights, sums, theta_sums);
  });
}

}  // namespace wgk
