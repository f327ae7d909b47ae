#include "minibatch_stddev.h"

#include <algorithm>
#include <cmath>
#include <vector>

namespace wgk {
namespace {

// `numbers` numbers of each sample, from where these point to in the first; `step` elements further are those of the
// next sample.
template <class T>
struct GroupNumbers {
  int64_t G, step, numbers;
  const T* x;
  const T* u;  // grad_grad_x, for the double backward
  T* grad_x;   // for both derivatives
};

}  // namespace
}  // namespace wgk

#define WGK_KERNELS "minibatch_stddev_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kChunk = 1 << 12;        // numbers of a block that one thread adds up
constexpr double kThreadWork = 1 << 15;    // elements below which a second thread costs more than it saves

// value, where it is asked for: [M, F] of dtype, the means of what group_sum adds up.
template <bool has_u, class T>
void go_over_groups(Isa isa, ParallelFor run, const SampleGroups& groups, const T* u, const T* grad_value, T* value,
                    T* grad_x) {
  const auto [dtype, G, M, F, P, x] = groups;
  const auto group_sum = WGK_PICK(isa, group_sum<has_u, T>);
  const int64_t chunks = std::max<int64_t>(1, ceil_div(P, kChunk)), step = M * F * P;
  std::vector<double> parts(M * F * chunks), by_value(M * F), means(M * F);
  if (grad_value != nullptr) {
    WGK_PICK(isa, read_numbers<T>)(grad_value, M * F, by_value.data());
  }
  const double work = static_cast<double>(std::min(P, kChunk)) * G;
  const auto grain = static_cast<int64_t>(kThreadWork / std::max(work, 1.0));
  parallel_for(run, M * F * chunks, grain, [&, G = G, P = P, x = x](int64_t begin, int64_t end) {
    for (int64_t part = begin; part < end; ++part) {
      const int64_t row = part / chunks, first = part % chunks * kChunk, at = row * P + first;
      const double scale = by_value[row] / (static_cast<double>(P) * G);
      parts[part] = group_sum({G, step, std::min(kChunk, P - first), static_cast<const T*>(x) + at,
                               has_u ? u + at : nullptr, grad_x == nullptr ? nullptr : grad_x + at},
                              scale);
    }
  });
  for (int64_t row = 0; value != nullptr && row < M * F; ++row) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum += parts[row * chunks + chunk];
    }
    means[row] = sum / static_cast<double>(P);
  }
  if (value != nullptr) {
    WGK_PICK(isa, write_numbers<T>)(means.data(), M * F, value);
  }
}

}  // namespace

void minibatch_stddev(Isa isa, ParallelFor run, const SampleGroups& groups, void* value) {
  with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    const T* const none = nullptr;
    go_over_groups<false, T>(isa, run, groups, none, none, static_cast<T*>(value), nullptr);
  });
}

void minibatch_stddev_backward(Isa isa, ParallelFor run, const SampleGroups& groups, const void* grad_value,
                               void* grad_x) {
  with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    const T* const none = nullptr;
    go_over_groups<false, T>(isa, run, groups, none, static_cast<const T*>(grad_value), nullptr,
                             static_cast<T*>(grad_x));
  });
}

void minibatch_stddev_double_backward(Isa isa, ParallelFor run, const SampleGroups& groups, const void* grad_grad_x,
                                      const void* grad_value, void* grad_grad_value, void* grad_x) {
  with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    go_over_groups<true, T>(isa, run, groups, static_cast<const T*>(grad_grad_x), static_cast<const T*>(grad_value),
                            static_cast<T*>(grad_grad_value), static_cast<T*>(grad_x));
  });
}

}  // namespace wgk
