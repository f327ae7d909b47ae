// One pair of tiles of kernel_matvec. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"
#include "simd_math.h"
#include "kernel_functions.h"
#include "pair_tiles.h"
#include "pair_packing.h"
#include "pair_arguments.h"

namespace wgk {
namespace WGK_ISA {

// w[i][j] (+)= weight * term of the kernel function, from dots[i][j] = z_i . z_j.
template <KernelTerm term, class T>
void matrix_rows(const KernelMixture& mixture, int64_t component, double weight, const PairTile<T>& i,
                 const PairTile<T>& j, bool add, const T* dots, T* w) {
  using V = Vector<T>;
  with_component<T>(mixture, component, [&](const auto& kernel) __attribute__((always_inline)) {
    using K = std::decay_t<decltype(kernel)>;
    const T *norm_i = K::kOfProducts ? i.shifts : i.norms, *norm_j = K::kOfProducts ? j.shifts : j.norms;
    for (int64_t r = 0; r < i.count; ++r) {
      for (int64_t c = 0; c < j.count; c += kLanes<T>) {
        const int64_t at = r * kTile + c;
        const V s = pair_argument<K>(load(dots + at), norm_i[r] + load(norm_j + c));
        const V value = static_cast<T>(weight) * pick<term>(kernel(s));
        store(w + at, add ? load(w + at) + value : value);
      }
    }
  });
}

// sums [kTile, v_stride] += K v for the tiles i of x and j of y, whose first points are the first_i-th and first_j-th.
template <KernelTerm term, class T>
void multiply_tiles(const KernelMixture& mixture, const double* weights, const PairTile<T>& i, const PairTile<T>& j,
                    int64_t first_i, int64_t first_j, bool diagonal, int64_t D, int64_t stride, const T* v,
                    int64_t v_stride, double* sums) {
  alignas(64) T dots[kTile * kTile], w[kTile * kTile];
  tile_dots(i.rows, i.panels, stride, i.count, j.panels, j.count, D, false, kTile, dots);
  for (int64_t c = 0; c < mixture.C; ++c) {
    matrix_rows<term>(mixture, c, weights[c], i, j, c > 0, dots, w);
  }
  for (int64_t r = i.count; r < ceil_div(i.count, kBlockRows) * kBlockRows; ++r) {
    std::memset(w + r * kTile, 0, kTile * sizeof(T));
  }
  for (int64_t r = 0; !diagonal && r < i.count; ++r) {
    const int64_t self = first_i + r - first_j;
    if (self >= 0 && self < j.count) {
      w[r * kTile + self] = 0;
    }
  }
  tile_weigh<false>(w, kTile, i.count, j.count, v, v_stride, sums);
}

}  // namespace WGK_ISA
}  // namespace wgk
