// Some numbers of a group of samples, in double throughout. Compiled once per instruction set (for_each_isa.h).
#include "row_kernels.h"
#include "simd_math.h"

namespace wgk {
namespace WGK_ISA {

// A vector of numbers, `rest` of which count.
template <bool whole, class T>
WGK_INLINE vdouble load_numbers(const T* p, int64_t rest) {
  return whole ? load_doubles(p) : load_tail(p, rest);
}

template <bool whole, class T>
WGK_INLINE void store_numbers(T* p, int64_t rest, vdouble v) {
  if constexpr (std::is_same_v<T, double>) {
    double lanes[kDoubles];
    store(lanes, v);
    std::memcpy(p, lanes, (whole ? kDoubles : rest) * sizeof(T));
  } else {
    const auto narrow = __builtin_convertvector(v, vec<float, kDoubles>);
    Vector<T> floats = {};
    std::memcpy(&floats, &narrow, sizeof(narrow));
    T lanes[kLanes<T>];
    store(lanes, floats);
    std::memcpy(p, lanes, (whole ? kDoubles : rest) * sizeof(T));
  }
}

struct GroupMoments {
  vdouble mean, deviation;     // of x; the deviation with its floor
  vdouble u_mean, covariance;  // of u, and with x
};

template <bool whole, bool has_u, class T>
WGK_INLINE GroupMoments group_moments(const GroupNumbers<T>& n, int64_t j, int64_t rest) {
  GroupMoments moments{};
  const double share = 1.0 / static_cast<double>(n.G);
  for (int64_t g = 0; g < n.G; ++g) {
    moments.mean += load_numbers<whole>(n.x + g * n.step + j, rest);
    if constexpr (has_u) {
      moments.u_mean += load_numbers<whole>(n.u + g * n.step + j, rest);
    }
  }
  moments.mean *= share;
  moments.u_mean *= share;
  vdouble squares = {};
  for (int64_t g = 0; g < n.G; ++g) {
    const vdouble centred = load_numbers<whole>(n.x + g * n.step + j, rest) - moments.mean;
    squares += centred * centred;
    if constexpr (has_u) {
      moments.covariance += load_numbers<whole>(n.u + g * n.step + j, rest) * centred;
    }
  }
  moments.covariance *= share;
  moments.deviation = square_root(squares * share + kVarianceFloor);
  return moments;
}

// grad_x of a vector of numbers; scale: grad_value / (P G).
template <bool whole, bool has_u, class T>
WGK_INLINE void write_gradients(const GroupNumbers<T>& n, int64_t j, int64_t rest, const GroupMoments& moments,
                                double scale) {
  const vdouble factor = scale / moments.deviation;
  const vdouble along = moments.covariance / (moments.deviation * moments.deviation);
  for (int64_t g = 0; g < n.G; ++g) {
    const vdouble centred = load_numbers<whole>(n.x + g * n.step + j, rest) - moments.mean;
    vdouble grad = factor * centred;
    if constexpr (has_u) {
      grad = factor * (load_numbers<whole>(n.u + g * n.step + j, rest) - moments.u_mean - along * centred);
    }
    store_numbers<whole>(n.grad_x + g * n.step + j, rest, grad);
  }
}

// The sum over the numbers of their deviations, or of the derivatives of these along u; writes grad_x where it is.
template <bool has_u, class T>
double group_sum(const GroupNumbers<T>& n, double scale) {
  const auto term = [&](auto whole, int64_t j, int64_t rest) __attribute__((always_inline)) {
    constexpr bool is_whole = decltype(whole)::value;
    const GroupMoments moments = group_moments<is_whole, has_u>(n, j, rest);
    if (n.grad_x != nullptr) {
      write_gradients<is_whole, has_u>(n, j, rest, moments, scale);
    }
    return has_u ? moments.covariance / moments.deviation : moments.deviation;
  };
  vdouble sum = {};
  int64_t j = 0;
  for (; j + kDoubles <= n.numbers; j += kDoubles) {
    sum += term(std::true_type(), j, kDoubles);
  }
  double total = sum_lanes(sum);
  if (j < n.numbers) {
    const vdouble last = term(std::false_type(), j, n.numbers - j);
    for (int64_t k = 0; k < n.numbers - j; ++k) {
      total += last[k];
    }
  }
  return total;
}

// `count` numbers of a storage type as doubles, and back.
template <class T>
void read_numbers(const T* from, int64_t count, double* to) {
  for (int64_t j = 0; j < count; j += kDoubles) {
    const int64_t rest = std::min<int64_t>(kDoubles, count - j);
    const vdouble wide = load_tail(from + j, rest);
    std::memcpy(to + j, &wide, rest * sizeof(double));
  }
}

template <class T>
void write_numbers(const double* from, int64_t count, T* to) {
  for (int64_t j = 0; j < count; j += kDoubles) {
    const int64_t rest = std::min<int64_t>(kDoubles, count - j);
    store_numbers<false>(to + j, rest, load_tail(from + j, rest));
  }
}

}  // namespace WGK_ISA
}  // namespace wgk
