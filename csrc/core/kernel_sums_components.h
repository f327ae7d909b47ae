// One kernel function on one cell of a pair of tiles: its sums, and the weights that the gradients are made with.
// Included by kernel_sums_kernels.h, hence once per instruction set and without a guard.

namespace wgk {
namespace WGK_ISA {

// Which pairs of a cell count.
enum class Counted { all, without_self, above_diagonal };

// All ones for the lanes that hold a pair to be counted: columns j + lane below count, not `self` or above it.
template <class T>
WGK_INLINE auto counted_lanes(int64_t j, int64_t count, int64_t self, Counted counted) {
  using Bits = vec<typename FloatBits<T>::Bits, kLanes<T>>;
  Bits lane;
  for (int k = 0; k < kLanes<T>; ++k) {
    lane[k] = k;
  }
  using Bit = typename FloatBits<T>::Bits;
  const auto inside = lane < static_cast<Bit>(count - j);
  const Bit at = static_cast<Bit>(self - j);
  return counted == Counted::all ? inside : inside & (counted == Counted::above_diagonal ? lane > at : lane != at);
}

// One component of the mixture on one cell of at most kTile x kTile pairs.
template <class T>
struct ComponentTask {
  int64_t count_i, count_j;
  Counted weighed;        // pairs that get weights: all, unless i and j are the same points
  Counted summed;         // the same, or half of them
  const T* norm_i;        // |z_i|^2, or the shifts of kernels of products
  const T* norm_j;
  int64_t dots_stride, w_stride;
  const T* dots;          // [.., dots_stride] z_i . z_j
  const T* along_norm_i;  // z_i . u_i, or the shifts along u, for tangents
  const T* along_norm_j;
  const T* along_dots;    // u_i . z_j + z_i . u_j
  T weight, along_theta;
  bool first;             // writes w instead of adding to it
  T* w;                   // [.., w_stride] sum over components of weight * dk/ds
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
    const bool half = mode == PairMode::values && task.summed == Counted::above_diagonal;
    for (int64_t j = half ? i / kStep * kStep : 0; j < task.count_j; j += kStep) {
      const int64_t at = i * task.dots_stride + j, w_at = i * task.w_stride + j;
      const auto keep = [&](Counted counted, V v) __attribute__((always_inline)) {
        if constexpr (masked) {
          return counted_lanes<T>(j, task.count_j, i, counted) ? v : V{};
        } else {
          return v;
        }
      };
      const V norms = task.norm_i[i] + load(task.norm_j + j);
      const KernelTerms<V> terms = kernel(pair_argument<K>(load(task.dots + at), norms));
      const auto put = [&](T* out, V v) __attribute__((always_inline)) {
        const V weighted = task.first ? task.weight * v : fma(splat<V>(task.weight), v, load(out + w_at));
        store(out + w_at, keep(task.weighed, weighted));
      };
      if constexpr (mode == PairMode::tangents) {
        const V along_norms = task.along_norm_i[i] + load(task.along_norm_j + j);
        const V along_dots = load(task.along_dots + at);
        const V along_s = K::kOfProducts ? along_norms + along_dots : 2 * (along_norms - along_dots);
        const V along_t = splat<V>(task.along_theta);
        sum += keep(task.summed, fma(terms.k_s, along_s, terms.k_t * along_t));
        put(task.w, terms.k_s);
        put(task.along_w, fma(terms.k_ss, along_s, terms.k_st * along_t));
        if constexpr (has_theta) {
          theta_sum += keep(task.summed, fma(terms.k_st, along_s, terms.k_tt * along_t));
        }
      } else {
        sum += keep(task.summed, terms.k);
        if constexpr (mode == PairMode::gradients) {
          put(task.w, terms.k_s);
        }
        if constexpr (has_theta) {
          theta_sum += keep(task.summed, terms.k_t);
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
    if (kAlwaysMasked || task.summed != Counted::all || task.count_j % kLanes<T> != 0) {
      return component_rows<mode, has_theta, true>(kernel, task);
    }
    return component_rows<mode, has_theta, kAlwaysMasked>(kernel, task);
  });
}

}  // namespace WGK_ISA
}  // namespace wgk
