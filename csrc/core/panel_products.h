// Products of weights with panels [features, width] of samples, and activations on the results.
// Included by a kernel file that for_each_isa.h compiles, hence once per instruction set and without a guard.

namespace wgk {
namespace WGK_ISA {

// The block of results that is kept in registers, of which there are 16, and 32 with AVX-512.
inline constexpr int kBlockRows = WGK_VECTOR_BYTES == 64 ? 8 : 6, kBlockVectors = 2;
inline constexpr int64_t kBlockTerms = 512;  // products of more terms than this are summed block by block

// sums[r][v] += sum_k a[r * row_step + k * step] * b[k * b_step + v * lanes], all in registers.
template <class T, int rows, int vectors>
WGK_INLINE void multiply_add(const T* a, int64_t row_step, int64_t step, const T* b, int64_t b_step, int64_t count,
                             Vector<T> (&sums)[rows][vectors]) {
  for (int64_t k = 0; k < count; ++k) {
    Vector<T> right[vectors];
#pragma GCC unroll 2
    for (int v = 0; v < vectors; ++v) {
      right[v] = load(b + k * b_step + v * kLanes<T>);
    }
#pragma GCC unroll 8
    for (int r = 0; r < rows; ++r) {
      const Vector<T> left = splat<Vector<T>>(a[r * row_step + k * step]);
#pragma GCC unroll 2
      for (int v = 0; v < vectors; ++v) {
        sums[r][v] = fma(left, right[v], sums[r][v]);
      }
    }
  }
}

// out[i] = finish(i, element, sum_k w[i * row_step + k * step] * panel[k]) for `rows` rows from i on.
template <class T, int rows, int vectors, class Finish>
WGK_INLINE void multiply_rows(const T* w, int64_t row_step, int64_t step, int64_t i, int64_t count, const T* panel,
                              T* out, const Finish& finish) {
  constexpr int64_t kWidth = vectors * kLanes<T>;
  w += i * row_step;
  for (int64_t begin = 0; begin < count || begin == 0; begin += kBlockTerms) {
    const int64_t terms = std::min(kBlockTerms, count - begin);
    Vector<T> sums[rows][vectors] = {};
    multiply_add<T, rows, vectors>(w + begin * step, row_step, step, panel + begin * kWidth, kWidth, terms, sums);
    for (int r = 0; r < rows; ++r) {
      for (int v = 0; v < vectors; ++v) {
        const int64_t at = (i + r) * kWidth + v * kLanes<T>;
        const Vector<T> sum = begin == 0 ? sums[r][v] : load(out + at) + sums[r][v];
        store(out + at, begin + terms == count ? finish(i + r, at, sum) : sum);
      }
    }
  }
}

// The same for rows 0 to n. The last block begins early enough to be a whole one: a row may be computed twice.
template <class T, int vectors, class Finish>
WGK_INLINE void multiply_panel(const T* w, int64_t row_step, int64_t step, int64_t n, int64_t count, const T* panel,
                               T* out, const Finish& finish) {
  if (n >= kBlockRows) {
    for (int64_t i = 0; i < n; i += kBlockRows) {
      multiply_rows<T, kBlockRows, vectors>(w, row_step, step, std::min(i, n - kBlockRows), count, panel, out, finish);
    }
  } else {
    for (int64_t i = 0; i < n; ++i) {
      multiply_rows<T, 1, vectors>(w, row_step, step, i, count, panel, out, finish);
    }
  }
}

// ---- masks of z > 0, a byte each

template <class T>
using Comparison = decltype(Vector<T>{} > Vector<T>{});
template <class T>
using MaskBytes = vec<int8_t, kLanes<T>>;

template <class T>
WGK_INLINE Comparison<T> load_mask(const int8_t* p) {
  return __builtin_convertvector(load_bytes<MaskBytes<T>>(p), Comparison<T>);
}

template <class T>
WGK_INLINE void store_mask(int8_t* p, Comparison<T> mask) {
  const auto bytes = __builtin_convertvector(mask, MaskBytes<T>);
  std::memcpy(p, &bytes, sizeof(bytes));
}

// What the linear part of a sweep becomes: through the activation, or through its derivative where it bends.
template <class T>
struct Bend {
  T slope;
  const int8_t* mask;  // null: unchanged

  WGK_INLINE Vector<T> operator()(int64_t, int64_t at, Vector<T> sum) const {
    if (mask == nullptr) {
      return sum;
    }
    return load_mask<T>(mask + at) ? sum : below(slope, sum);
  }
  // 0 for a ReLU whatever x is, infinity too.
  WGK_INLINE static Vector<T> below(T slope, Vector<T> x) {
    return slope == T{0} ? Vector<T>{} : splat<Vector<T>>(slope) * x;
  }
};

template <class T>
struct Activate {
  T slope;
  const T* bias;
  int8_t* mask;  // null: identity

  WGK_INLINE Vector<T> operator()(int64_t i, int64_t at, Vector<T> sum) const {
    const Vector<T> z = bias == nullptr ? sum : sum + splat<Vector<T>>(bias[i]);
    if (mask == nullptr) {
      return z;
    }
    // As torch has it for NaN: relu lets it through, leaky_relu scales it.
    const Comparison<T> above = slope == T{0} ? ~(z <= Vector<T>{}) : z > Vector<T>{};
    store_mask<T>(mask + at, above);
    return above ? z : Bend<T>::below(slope, z);
  }
};

}  // namespace WGK_ISA
}  // namespace wgk
