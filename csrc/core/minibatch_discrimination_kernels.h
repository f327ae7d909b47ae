// All pairs of a few samples with the others, for one feature. Compiled once per instruction set (for_each_isa.h).
#include "simd.h"
#include "simd_math.h"

namespace wgk {
namespace WGK_ISA {

template <class T>
using LaneBits = vec<typename FloatBits<T>::Bits, kLanes<T>>;

constexpr int64_t kPairColumns = 256;  // samples j that are weighed before their gradients are added up
constexpr int64_t kTermsInARow = 16;   // additions in T before a sum goes to another

// Samples i that go over the others together. A sum of fewer stays in registers where there are two of each.
template <DiscriminationPass pass>
inline constexpr int kPairRows = pass == DiscriminationPass::double_backward ? 4 : 8;

template <class T>
WGK_INLINE LaneBits<T> sign_bits(Vector<T> v) {
  const Vector<T> minus_zero = splat<Vector<T>>(static_cast<T>(-0.0));
  return load_bytes<LaneBits<T>>(&v) & load_bytes<LaneBits<T>>(&minus_zero);
}

template <class T>
WGK_INLINE Vector<T> magnitude(Vector<T> v) {
  const LaneBits<T> bits = load_bytes<LaneBits<T>>(&v) ^ sign_bits<T>(v);
  return load_bytes<Vector<T>>(&bits);
}

// c * sign(difference), with sign(0) = 0.
template <class T>
WGK_INLINE Vector<T> signed_by(Vector<T> difference, Vector<T> c) {
  const LaneBits<T> bits = load_bytes<LaneBits<T>>(&c) ^ sign_bits<T>(difference);
  return difference != 0 ? load_bytes<Vector<T>>(&bits) : Vector<T>{};
}

// The samples i, from `first` on; rows past the last repeat it and pair with nothing.
template <class T, int count>
struct PairRows {
  int64_t first, rows;

  WGK_INLINE int64_t at(int r) const { return r < rows ? first + r : first + rows - 1; }
  // All ones for the lanes of samples j > i.
  WGK_INLINE LaneBits<T> counted(int r, int64_t j, int64_t B) const {
    using Bit = typename FloatBits<T>::Bits;
    LaneBits<T> lane;
    for (int k = 0; k < kLanes<T>; ++k) {
      lane[k] = k;
    }
    const int64_t own = r < rows ? first + r : B;
    return (lane > static_cast<Bit>(own - j)) & (lane < static_cast<Bit>(B - j));
  }
};

// For the pairs of these rows with the samples [j, j + lanes): the distances, and the derivatives of them along u.
template <class T, bool has_u, int count>
WGK_INLINE void pair_distances(const DiscriminatedFeature<T>& f, const PairRows<T, count>& rows, int64_t j,
                               Vector<T>* distances, Vector<T>* slopes) {
  for (int64_t first = 0; first < f.K; first += kTermsInARow) {
    Vector<T> distance[count] = {}, slope[count] = {};
    for (int64_t k = first; k < std::min(first + kTermsInARow, f.K); ++k) {
      const T* z = f.z + k * f.stride;
      const Vector<T> z_j = load(z + j);
      for (int r = 0; r < count; ++r) {
        const Vector<T> difference = z[rows.at(r)] - z_j;
        distance[r] += magnitude<T>(difference);
        if constexpr (has_u) {
          const T* u = f.u + k * f.stride;
          slope[r] += signed_by<T>(difference, u[rows.at(r)] - load(u + j));
        }
      }
    }
    for (int r = 0; r < count; ++r) {
      distances[r] += distance[r];
      slopes[r] += slope[r];
    }
  }
}

// c[r][j] for the samples [begin, end): by how much the pair's distance takes part in the result. Sums of the value, or
// of grad_grad_o, are added up on the way.
template <DiscriminationPass pass, class T, int count>
WGK_INLINE void weigh_pairs(const DiscriminatedFeature<T>& f, const PairRows<T, count>& rows, int64_t begin,
                            int64_t end, T (&c)[count][kPairColumns]) {
  using Pass = DiscriminationPass;
  using V = Vector<T>;
  V row_sums[count] = {};
  for (int64_t j = begin; j < end; j += kLanes<T>) {
    V distances[count] = {}, slopes[count] = {}, column_sum = {};
    pair_distances<T, pass == Pass::double_backward>(f, rows, j, distances, slopes);
    for (int r = 0; r < count; ++r) {
      V term = exp2_of_negative(distances[r] * static_cast<T>(-1.4426950408889634074));
      if constexpr (pass == Pass::double_backward) {
        term = -term * slopes[r];
      }
      term = rows.counted(r, j, f.B) ? term : V{};
      if constexpr (pass != Pass::backward) {
        row_sums[r] += term;
        column_sum += term;
      }
      if constexpr (pass != Pass::value) {
        store(&c[r][j - begin], rows.counted(r, j, f.B) ? -term * (f.w[rows.at(r)] + load(f.w + j)) : V{});
      }
    }
    if constexpr (pass != Pass::backward) {
      add_to(f.sums + j, column_sum);
    }
  }
  for (int64_t r = 0; pass != Pass::backward && r < rows.rows; ++r) {
    f.sums[rows.first + r] += sum_lanes(row_sums[r]);
  }
}

// grads += c * sign(z_i - z_j) for i, and as much less for j.
template <class T, int count>
WGK_INLINE void add_gradients(const DiscriminatedFeature<T>& f, const PairRows<T, count>& rows, int64_t begin,
                              int64_t end, const T (&c)[count][kPairColumns]) {
  for (int64_t k = 0; k < f.K; ++k) {
    const T* z = f.z + k * f.stride;
    double* grads = f.grads + k * f.stride;
    Vector<T> row_sums[count] = {};
    for (int64_t j = begin; j < end; j += kLanes<T>) {
      const Vector<T> z_j = load(z + j);
      Vector<T> column_sum = {};
      for (int r = 0; r < count; ++r) {
        const Vector<T> term = signed_by<T>(z[rows.at(r)] - z_j, load(&c[r][j - begin]));
        row_sums[r] += term;
        column_sum -= term;
      }
      add_to(grads + j, column_sum);
    }
    for (int64_t r = 0; r < rows.rows; ++r) {
      grads[rows.first + r] += sum_lanes(row_sums[r]);
    }
  }
}

// Every pair i < j of the samples i in [first, first + kPairRows) that are among f.rows.
template <DiscriminationPass pass, class T>
void discriminate_rows(const DiscriminatedFeature<T>& f, int64_t first) {
  constexpr int count = kPairRows<pass>;
  const PairRows<T, count> rows{first, std::min<int64_t>(count, f.rows - first)};
  alignas(64) T c[count][kPairColumns];
  for (int64_t begin = first / kLanes<T> * kLanes<T>; begin < f.B; begin += kPairColumns) {
    const int64_t end = std::min(begin + kPairColumns, f.stride);
    weigh_pairs<pass>(f, rows, begin, end, c);
    if constexpr (pass != DiscriminationPass::value) {
      add_gradients(f, rows, begin, end, c);
    }
  }
}

// to[k, at] = from[k], K numbers of a sample, widened.
template <class S, class T>
void spread_sample(const S* from, int64_t K, int64_t stride, T* to) {
  for (int64_t k = 0; k < K; k += kLanes<S>) {
    const int64_t count = std::min<int64_t>(kLanes<S>, K - k);
    S part[kLanes<S>] = {};
    std::memcpy(part, from + k, count * sizeof(S));
    const Vector<S> wide = load(part);
    for (int64_t e = 0; e < count; ++e) {
      to[(k + e) * stride] = wide[e];
    }
  }
}

// to[k] = from[k, at], rounded.
template <class S>
void gather_sample(const double* from, int64_t K, int64_t stride, S* to) {
  for (int64_t k = 0; k < K; k += kLanes<S>) {
    const int64_t count = std::min<int64_t>(kLanes<S>, K - k);
    Vector<S> wide = {};
    for (int64_t e = 0; e < count; ++e) {
      wide[e] = static_cast<Compute<S>>(from[(k + e) * stride]);
    }
    S part[kLanes<S>];
    store(part, wide);
    std::memcpy(to + k, part, count * sizeof(S));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
