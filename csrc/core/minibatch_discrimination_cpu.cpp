#include "minibatch_discrimination.h"

#include <algorithm>
#include <cmath>

#include "buffer.h"
#include "minibatch_discrimination_feature.h"

#define WGK_KERNELS "minibatch_discrimination_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

using Pass = DiscriminationPass;

constexpr double kThreadWork = 1e6;  // operations below which a second thread costs more than it saves
constexpr int64_t kTasks = 16;       // enough to share out; with fewer features their pairs are cut into parts
constexpr int64_t kColumns = 16;     // the lanes of the widest vector: arrays are a multiple of it

// S is the type of the arrays, T the one that they are computed in.
template <class S, class T, Pass pass>
class Discrimination {
 public:
  Discrimination(Isa isa, const ProjectedBatch& batch, const S* grad_grad_m, const S* grad_o, S* sums, S* grad_m)
      : isa_(isa), batch_(batch), grad_grad_m_(grad_grad_m), grad_o_(grad_o), sums_(sums), grad_m_(grad_m) {}

  void operator()(ParallelFor run) const {
    const int64_t F = batch_.F, parts = std::max<int64_t>(1, std::min(strips(), ceil_div(kTasks, std::max<int64_t>(1, F))));
    const Buffer<double> shares(parts == 1 ? 0 : F * parts * share());
    const double work = 4.0 * (batch_.K + 8) * batch_.rows() * batch_.B / parts;
    parallel_for(run, F * parts, static_cast<int64_t>(kThreadWork / std::max(work, 1.0)), [&](int64_t begin, int64_t end) {
      const Buffer<T> packed((2 * batch_.K + 1) * stride_);
      const Buffer<double> own(parts == 1 ? share() : 0);
      for (int64_t task = begin; task < end; ++task) {
        double* to = parts == 1 ? own.get() : shares.get() + task * share();
        std::fill_n(to, share(), 0.0);
        sweep(pack(task / parts, packed.get(), to), task % parts, parts);
        parts == 1 ? write(task, to) : void();
      }
    });
    if (parts > 1) {
      parallel_for(run, F, (1 << 16) / (1 + parts * share()), [&](int64_t begin, int64_t end) {
        for (int64_t f = begin; f < end; ++f) {
          write(f, added_up(shares.get() + f * parts * share(), parts));
        }
      });
    }
  }

 private:
  int64_t strips() const { return ceil_div(batch_.rows(), plain::kPairRows<pass>); }
  int64_t share() const { return (pass == Pass::value ? 1 : batch_.K + 1) * stride_; }

  // The sample that is at this place once those of `rows` come first.
  int64_t sample(int64_t place) const {
    return place < batch_.rows() ? batch_.begin + place : place < batch_.end ? place - batch_.rows() : place;
  }

  DiscriminatedFeature<T> pack(int64_t f, T* packed, double* to) const {
    const auto spread = WGK_PICK(isa_, spread_sample<S, T>);
    const int64_t B = batch_.B, F = batch_.F, K = batch_.K;
    T *const z = packed, *const u = z + K * stride_, *const w = u + K * stride_;
    std::fill_n(packed, (2 * K + 1) * stride_, T{0});
    for (int64_t place = 0; place < B; ++place) {
      const int64_t at = (sample(place) * F + f) * K;
      spread(static_cast<const S*>(batch_.m) + at, K, stride_, z + place);
      if constexpr (pass == Pass::double_backward) {
        spread(grad_grad_m_ + at, K, stride_, u + place);
      }
    }
    for (int64_t row = 0; pass != Pass::value && row < batch_.rows(); ++row) {
      spread(grad_o_ + row * F + f, 1, 1, w + row);
    }
    return {batch_.rows(), B, K, stride_, z, u, w, to, to + stride_};
  }

  // Strips near the first sample meet more of the others: every part takes some of each.
  void sweep(const DiscriminatedFeature<T>& feature, int64_t part, int64_t parts) const {
    const auto discriminate = WGK_PICK(isa_, discriminate_rows<pass, T>);
    for (int64_t strip = part; strip < strips(); strip += parts) {
      discriminate(feature, strip * plain::kPairRows<pass>);
    }
  }

  // All parts in the place of the first, added in order.
  double* added_up(double* parts, int64_t count) const {
    for (int64_t part = 1; part < count; ++part) {
      for (int64_t at = 0; at < share(); ++at) {
        parts[at] += parts[part * share() + at];
      }
    }
    return parts;
  }

  void write(int64_t f, const double* from) const {
    const auto gather = WGK_PICK(isa_, gather_sample<S>);
    const int64_t F = batch_.F, K = batch_.K;
    for (int64_t row = 0; pass != Pass::backward && row < batch_.rows(); ++row) {
      gather(from + row, 1, 1, sums_ + row * F + f);
    }
    for (int64_t place = 0; pass != Pass::value && place < batch_.B; ++place) {
      gather(from + stride_ + place, K, stride_, grad_m_ + (sample(place) * F + f) * K);
    }
  }

  Isa isa_;
  const ProjectedBatch& batch_;
  const S *grad_grad_m_, *grad_o_;
  S *sums_, *grad_m_;
  int64_t stride_ = ceil_div(batch_.B, kColumns) * kColumns;
};

template <Pass pass>
void discriminate(Isa isa, ParallelFor run, const ProjectedBatch& batch, const void* grad_grad_m, const void* grad_o,
                  void* sums, void* grad_m) {
  with_type(batch.dtype, [&](auto type) {
    using S = decltype(type);
    const Discrimination<S, plain::Compute<S>, pass> discrimination(
        isa, batch, static_cast<const S*>(grad_grad_m), static_cast<const S*>(grad_o), static_cast<S*>(sums),
        static_cast<S*>(grad_m));
    discrimination(run);
  });
}

}  // namespace

void minibatch_discrimination(Isa isa, ParallelFor run, const ProjectedBatch& batch, void* o) {
  discriminate<Pass::value>(isa, run, batch, nullptr, nullptr, o, nullptr);
}

void minibatch_discrimination_backward(Isa isa, ParallelFor run, const ProjectedBatch& batch, const void* grad_o,
                                       void* grad_m) {
  discriminate<Pass::backward>(isa, run, batch, nullptr, grad_o, nullptr, grad_m);
}

void minibatch_discrimination_double_backward(Isa isa, ParallelFor run, const ProjectedBatch& batch,
                                              const void* grad_grad_m, const void* grad_o, void* grad_grad_o,
                                              void* grad_m) {
  discriminate<Pass::double_backward>(isa, run, batch, grad_grad_m, grad_o, grad_grad_o, grad_m);
}

}  // namespace wgk
