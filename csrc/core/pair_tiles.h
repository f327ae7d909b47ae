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

// ---- packing

template <class S>
WGK_INLINE vdouble load_some(const S* p, int64_t count) {
  if (count >= kDoubles) {
    return load_doubles(p);
  }
  S some[kDoubles] = {};
  std::memcpy(some, p, count * sizeof(S));
  return load_doubles(some);
}

// sums[d] += sum over rows, `stride` apart, of D features, in the order of the rows. sums has room for a whole vector
// more.
template <class S>
void add_rows(const S* points, int64_t count, int64_t stride, int64_t D, double* sums) {
  for (int64_t i = 0; i < count; ++i) {
    for (int64_t d = 0; d < D; d += kDoubles) {
      add_to(sums + d, load_some(points + i * stride + d, D - d));
    }
  }
}

// As many points as whole blocks and panels of a tile with `count` points hold.
template <class T>
int64_t packed_count(int64_t count) {
  constexpr int64_t kPanels = kPanel<T>, kRows = kBlockRows;
  return std::max(ceil_div(count, kPanels) * kPanels, ceil_div(count, kRows) * kRows);
}

// rows[i] = points[i] - origin for count points [count, D].
template <class S, class T>
void centre_rows(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows) {
  if (stride != D) {
    std::memset(rows, 0, count * stride * sizeof(T));
  }
  using Lanes = vec<T, kDoubles>;
  const auto centred = [&](const vdouble& values, int64_t d) __attribute__((always_inline)) {
    return __builtin_convertvector(values - load(origin + d), Lanes);
  };
  for (int64_t i = 0; i < count; ++i, points += D, rows += stride) {
    int64_t d = 0;
    for (; d + kDoubles <= D; d += kDoubles) {
      const Lanes lanes = centred(load_doubles(points + d), d);
      std::memcpy(rows + d, &lanes, sizeof(lanes));
    }
    if (d < D) {
      const Lanes lanes = centred(load_some(points + d, D - d), d);
      std::memcpy(rows + d, &lanes, (D - d) * sizeof(T));
    }
  }
}

// Rows of a tile, and zeros behind them.
template <class S, class T>
void pack_rows(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows) {
  centre_rows(points, count, D, origin, stride, rows);
  std::memset(rows + count * stride, 0, (packed_count<T>(count) - count) * stride * sizeof(T));
}

// The lanes numbered k of a and, after them, of b. GCC before 12 knows only the one built-in, clang only the other.
template <class T, int... k>
WGK_INLINE Vector<T> shuffle(Vector<T> a, Vector<T> b) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, k...);
#else
  return __builtin_shuffle(a, b, vec<typename FloatBits<T>::Bits, kLanes<T>>{k...});
#endif
}

template <class T, int h, int... k>
WGK_INLINE void exchange(Vector<T>& a, Vector<T>& b, std::integer_sequence<int, k...>) {
  constexpr int L = kLanes<T>;
  const Vector<T> low = shuffle<T, ((k & h) ? L + k - h : k)...>(a, b);
  b = shuffle<T, ((k & h) ? L + k : k + h)...>(a, b);
  a = low;
}

// v[i][k] becomes v[k][i]: what is `h` off the diagonal changes sides, for each bit h of the lanes.
template <class T, int h = 1>
WGK_INLINE void transpose(Vector<T> (&v)[kLanes<T>]) {
  if constexpr (h < kLanes<T>) {
#pragma GCC unroll 16
    for (int i = 0; i < kLanes<T>; ++i) {
      if (!(i & h)) {
        exchange<T, h>(v[i], v[i + h], std::make_integer_sequence<int, kLanes<T>>());
      }
    }
    transpose<T, 2 * h>(v);
  }
}

// panel[d][k] = rows[k][d] for the rows of one panel.
template <class T>
void turn_panel(const T* rows, int64_t stride, int64_t D, T* panel) {
  for (int64_t d = 0; d < D; d += kLanes<T>) {
    for (int v = 0; v < kBlockVectors; ++v) {
      Vector<T> block[kLanes<T>];
#pragma GCC unroll 16
      for (int k = 0; k < kLanes<T>; ++k) {
        block[k] = load(rows + (v * kLanes<T> + k) * stride + d);
      }
      transpose<T>(block);
      T* out = panel + d * kPanel<T> + v * kLanes<T>;
      if (d + kLanes<T> <= D) {
#pragma GCC unroll 16
        for (int k = 0; k < kLanes<T>; ++k) {
          store(out + k * kPanel<T>, block[k]);
        }
      } else {
        for (int64_t k = 0; k < D - d; ++k) {
          store(out + k * kPanel<T>, block[k]);
        }
      }
    }
  }
}

// Rows and panels of a tile, a panel's points at a time: they are in the cache when they are turned.
template <class S, class T>
void pack_points(const S* points, int64_t count, int64_t D, const double* origin, int64_t stride, T* rows, T* panels) {
  std::memset(rows + count * stride, 0, (packed_count<T>(count) - count) * stride * sizeof(T));
  for (int64_t j = 0; j < count; j += kPanel<T>, rows += kPanel<T> * stride, panels += kPanel<T> * D) {
    centre_rows(points + j * D, std::min<int64_t>(kPanel<T>, count - j), D, origin, stride, rows);
    turn_panel(rows, stride, D, panels);
  }
}

// out[i] = sum_d a[i][d] * b[i][d] in double, rounded once.
template <class T>
void tile_row_dots(const T* a, const T* b, int64_t count, int64_t stride, T* out) {
  for (int64_t i = 0; i < count; ++i) {
    vdouble sums{};
    for (int64_t d = 0; d < stride; d += kDoubles) {
      sums += load_doubles(a + i * stride + d) * load_doubles(b + i * stride + d);
    }
    out[i] = static_cast<T>(sum_lanes(sums));
  }
}

// out[i] = a[i] . b + of, in double; a: [count, stride], b: [stride]. Added to what out holds if `add`.
template <class T>
void tile_shifts(const T* a, const double* b, double of, int64_t count, int64_t stride, bool add, double* out) {
  for (int64_t i = 0; i < count; ++i) {
    vdouble sums{};
    for (int64_t d = 0; d < stride; d += kDoubles) {
      sums += load_doubles(a + i * stride + d) * load(b + d);
    }
    out[i] = (add ? out[i] : 0) + sum_lanes(sums) + of;
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
