// Points as rows and panels of tiles, in the layout of pair_tiles.h, and what is computed of each point. Included after
// that, hence once per instruction set and without a guard.

namespace wgk {
namespace WGK_ISA {

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
