// Matrix products on tiles of pairs of points, in registers. Included after simd.h, hence once
// per instruction set and without a guard. T is float or double.
//
// Packed points of a tile: `rows` [points, stride], padded with zeros, and `panels` [points / kPanel<T>, D, kPanel<T>],
// the same numbers the other way round. stride is a whole number of vectors, at least D.

namespace wgk {
namespace WGK_ISA {

// The block of results that is kept in registers, of which there are 16, and 32 with AVX-512.
inline constexpr int kBlockRows = WGK_VECTOR_BYTES == 64 ? 8 : 6, kBlockVectors = 2;
template <class T>
inline constexpr int kPanel = kBlockVectors* kLanes<T>;
static_assert(kTile % kBlockRows == 0 && kTile % kPanel<float> == 0 && kTile % kPanel<double> == 0);

inline constexpr int64_t kFeatureBlock = 256;  // products of more features than this are summed block by block

// sums[r][v] = sum_k a[r * row_step + k * step] * b[k * b_step + v * lanes], all in registers. Brings the L2 cache a
// vector for each k of what will be needed soon, if anything.
template <class T, int vectors>
WGK_INLINE void multiply_block(const T* a, int64_t row_step, int64_t step, const T* b, int64_t b_step, int64_t count,
                               Vector<T> (&sums)[kBlockRows][vectors], const T* soon = nullptr) {
#pragma GCC unroll 8
  for (int r = 0; r < kBlockRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      sums[r][v] = Vector<T>{};
    }
  }
  for (int64_t k = 0; k < count; ++k) {
    if (soon != nullptr) {
      __builtin_prefetch(soon + k * kLanes<T>, 0, 2);
    }
    Vector<T> right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      right[v] = load(b + k * b_step + v * kLanes<T>);
    }
#pragma GCC unroll 8
    for (int r = 0; r < kBlockRows; ++r) {
      const Vector<T> left = splat<Vector<T>>(a[r * row_step + k * step]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = fma(left, right[v], sums[r][v]);
      }
    }
  }
}

// Whether the rows of a block lie side by side in a panel, so that products read their left side from panels too.
template <class T>
inline constexpr bool kLeftFromPanels = kPanel<T> % kBlockRows == 0;

// out[i][j] (+)= z_i . z_j for whole blocks that cover count_i x count_j; out: [.., out_stride].
// rows_i: null where the left side is read from panels_i. above: pairs on and above the diagonal will do.
template <class T>
void tile_dots(const T* rows_i, const T* panels_i, int64_t stride, int64_t count_i, const T* panels_j, int64_t count_j,
               int64_t D, bool add, int64_t out_stride, T* out, bool above = false) {
  for (int64_t begin = 0; begin < D || begin == 0; begin += kFeatureBlock, add = true) {
    const int64_t features = std::min(kFeatureBlock, D - begin);
    const auto panel = [&](const T* panels, int64_t k) { return panels + (k * D + begin) * kPanel<T>; };
    // A panel's part stays in the L1 cache, while the next one comes nearer.
    for (int64_t j = 0; j < count_j; j += kPanel<T>) {
      const T* const right = panel(panels_j, j / kPanel<T>);
      const T* const next = j + kPanel<T> < count_j ? right + kPanel<T> * D
                            : begin + features < D  ? panels_j + (begin + features) * kPanel<T>
                                                    : right;
      const auto multiply = [&](int64_t i, auto of_panel) __attribute__((always_inline)) {
        constexpr int vectors = decltype(of_panel)::value;
        Vector<T> sums[kBlockRows][vectors];
        const T* const soon = next + i / kBlockRows % kBlockVectors * features * kLanes<T>;
        if constexpr (kLeftFromPanels<T>) {
          multiply_block<T, vectors>(panel(panels_i, i / kPanel<T>) + i % kPanel<T>, 1, kPanel<T>, right, kPanel<T>,
                                     features, sums, soon);
        } else {
          multiply_block<T, vectors>(rows_i + i * stride + begin, stride, 1, right, kPanel<T>, features, sums, soon);
        }
        for (int r = 0; r < kBlockRows; ++r) {
          for (int v = 0; v < vectors; ++v) {
            T* at = out + (i + r) * out_stride + j + v * kLanes<T>;
            store(at, add ? load(at) + sums[r][v] : sums[r][v]);
          }
        }
      };
      const bool narrow = count_j - j <= kLanes<T>;
      const int64_t end_i = above ? std::min<int64_t>(count_i, j + kPanel<T>) : count_i;
      for (int64_t i = 0; i < end_i; i += kBlockRows) {
        narrow ? multiply(i, std::integral_constant<int, 1>())
               : multiply(i, std::integral_constant<int, kBlockVectors>());
      }
    }
  }
}

template <bool transposed, class T, int vectors>
WGK_INLINE void weigh_block(const T* w, int64_t w_stride, int64_t count, const T* rows, int64_t stride, double* sums) {
  const int64_t row_step = transposed ? 1 : w_stride, step = transposed ? w_stride : 1;
  for (int64_t begin = 0; begin < count; begin += kTile) {  // no longer, for sums in float
    Vector<T> block[kBlockRows][vectors];
    multiply_block<T, vectors>(w + begin * step, row_step, step, rows + begin * stride, stride,
                               std::min(kTile, count - begin), block);
    for (int r = 0; r < kBlockRows; ++r) {
      for (int v = 0; v < vectors; ++v) {
        add_to(sums + r * stride + v * kLanes<T>, block[r][v]);
      }
    }
  }
}

// sums[i][:] += sum_k w[i][k] * rows[k][:], or w[k][i] if transposed; i < count_i (rounded up to whole blocks),
// k < count_k. w: [.., w_stride], rows, sums: [.., stride].
template <bool transposed, class T>
void tile_weigh(const T* w, int64_t w_stride, int64_t count_i, int64_t count_k, const T* rows, int64_t stride,
                double* sums) {
  const int64_t next = transposed ? 1 : w_stride;
  int64_t d = 0;
  for (; d + kPanel<T> <= stride; d += kPanel<T>) {
    for (int64_t i = 0; i < count_i; i += kBlockRows) {
      weigh_block<transposed, T, kBlockVectors>(w + i * next, w_stride, count_k, rows + d, stride,
                                                sums + i * stride + d);
    }
  }
  if (d < stride) {
    for (int64_t i = 0; i < count_i; i += kBlockRows) {
      weigh_block<transposed, T, 1>(w + i * next, w_stride, count_k, rows + d, stride, sums + i * stride + d);
    }
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
