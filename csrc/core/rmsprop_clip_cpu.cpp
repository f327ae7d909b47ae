#include "rmsprop_clip.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <vector>

namespace wgk {
namespace {

struct ClipCount {
  int64_t at_bound = 0;
  double largest = 0;
};

}  // namespace
}  // namespace wgk

#define WGK_KERNELS "rmsprop_clip_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kUnit = 64;         // elements that stay together: whole vectors and cache lines
constexpr int64_t kGrain = 1 << 8;    // units below which a second thread costs more than it saves

// Where each tensor begins in a count of units, one more for each tensor: what it costs to begin with it. Threads get
// equal parts of the count, whatever the sizes.
std::vector<int64_t> first_units(const RmspropTensor* tensors, int64_t count) {
  std::vector<int64_t> first(count + 1, 0);
  for (int64_t t = 0; t < count; ++t) {
    first[t + 1] = first[t] + ceil_div(tensors[t].count, kUnit) + 1;
  }
  return first;
}

// Integers have no order of addition, and the bits of a magnitude, a NaN's too, are ordered as the numbers are.
class SharedCount {
 public:
  void add(const ClipCount& count) {
    at_bound_.fetch_add(count.at_bound, std::memory_order_relaxed);
    int64_t bits, before = largest_.load(std::memory_order_relaxed);
    std::memcpy(&bits, &count.largest, sizeof(bits));
    bits &= INT64_MAX;
    while (before < bits && !largest_.compare_exchange_weak(before, bits, std::memory_order_relaxed)) {
    }
  }

  void add_to(int64_t* stats) const {
    stats[0] += at_bound_.load();
    stats[1] = std::max(stats[1], largest_.load());
  }

 private:
  std::atomic<int64_t> at_bound_{0}, largest_{0};
};

double value(const RmspropNumber& number, double otherwise) {
  return number.at == nullptr                ? otherwise
         : number.dtype == DType::float64 ? *static_cast<const double*>(number.at)
                                             : *static_cast<const float*>(number.at);
}

void add_one(const RmspropNumber& number) {
  if (number.at != nullptr && number.dtype == DType::float64) {
    *static_cast<double*>(number.at) += 1;
  } else if (number.at != nullptr) {
    *static_cast<float*>(number.at) += 1;
  }
}

}  // namespace

void rmsprop_clip(Isa isa, ParallelFor run, const RmspropTensor* tensors, int64_t count, const RmspropStep& asked,
                  int64_t* stats) {
  if (value(asked.found_inf, 0) != 0) {
    return;
  }
  RmspropStep step = asked;
  step.lr = value(asked.lr_at, asked.lr);
  // As GradScaler unscales: by the reciprocal, rounded to float32.
  step.grad_factor *= asked.grad_scale.at == nullptr ? 1 : static_cast<float>(1 / value(asked.grad_scale, 1));
  for (int64_t t = 0; t < count; ++t) {
    add_one(tensors[t].step);
  }
  const std::vector<int64_t> first = first_units(tensors, count);
  SharedCount shared;
  parallel_for(run, first[count], kGrain, [&](int64_t begin, int64_t end) {
    ClipCount counted;
    int64_t t = std::upper_bound(first.begin(), first.end(), begin) - first.begin() - 1;
    for (; t < count && first[t] < end; ++t) {
      const int64_t from = std::max<int64_t>(0, begin - first[t]) * kUnit;
      const int64_t to = std::min((end - first[t]) * kUnit, tensors[t].count);
      with_type(tensors[t].dtype, [&](auto type) {
        using T = decltype(type);
        if (from < to) {
          WGK_PICK(isa, rmsprop_range<T>)(tensors[t], from, to, step, stats == nullptr ? nullptr : &counted);
        }
      });
    }
    shared.add(counted);
  });
  if (stats != nullptr) {
    shared.add_to(stats);
  }
}

}  // namespace wgk
