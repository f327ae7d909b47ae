// How the CPU adds up the gradients of group_norm's parameters: in chunks of samples, which are added up in order.
#pragma once

#include <algorithm>
#include <numeric>

#include "buffer.h"
#include "group_norm.h"

namespace wgk {

constexpr int64_t kNormLongRun = 256;             // from here on a parameter is a run's, and not copied to each element
constexpr int64_t kNormGrain = 1 << 15;           // elements below which a second thread costs more than it saves

// Samples are gone through in chunks, each of which adds up its part of the parameters' gradients: of few samples, as
// the sums of each element are kept in float, and few chunks, as they take memory. Known from B alone.
struct NormChunks {
  int64_t B, size, count;

  NormChunks(int64_t B, bool has_grads)
      : B(B), size(has_grads ? std::clamp<int64_t>(B / 4, 4, 16) : 1), count(ceil_div(B, size)) {}
  int64_t begin(int64_t chunk) const { return chunk * size; }
  int64_t end(int64_t chunk) const { return std::min(B, (chunk + 1) * size); }
};

// The gradients of parameters that each chunk of samples adds up: [chunks, parameters], of elements or of runs.
template <class Part>
class NormParts {
 public:
  NormParts(const NormChunks& chunks, const GroupNorm& norm, bool each, bool wanted)
      : per_channel_(each ? norm.S : 1), channels_(norm.channels()), width_(norm.C * per_channel_),
        memory_(wanted ? chunks.count * width_ : 0) {}

  // The parts of a chunk, those of one group set to zero; null where they are not wanted.
  Part* start(int64_t chunk, int64_t group) const {
    if (memory_.get() == nullptr) {
      return nullptr;
    }
    Part* const parts = memory_.get() + chunk * width_;
    std::fill_n(parts + group * channels_ * per_channel_, channels_ * per_channel_, Part{0});
    return parts;
  }
  // The same of all groups, set to zero for the first sample of the chunk.
  Part* of(int64_t chunk, bool is_first) const {
    if (memory_.get() == nullptr) {
      return nullptr;
    }
    Part* const parts = memory_.get() + chunk * width_;
    if (is_first) {
      std::fill_n(parts, width_, Part{0});
    }
    return parts;
  }
  int64_t per_channel() const { return per_channel_; }
  const Part* all() const { return memory_.get(); }

 private:
  int64_t per_channel_, channels_, width_;
  Buffer<Part> memory_;
};

constexpr int64_t kNormSumBlock = 256;  // numbers that are added up side by side, no less than a channel's
static_assert(kNormSumBlock >= kNormLongRun);

// grad[c] = the sum of the chunks' parts, [chunks, C * per_channel]; in order. Of images without pixels per_channel is 0.
template <class Part, class Number>
void add_chunks(ParallelFor run, int64_t chunks, int64_t C, int64_t per_channel, const Part* parts, Number* grad) {
  if (grad == nullptr) {
    return;
  }
  const int64_t step = kNormSumBlock / std::max<int64_t>(1, per_channel), blocks = ceil_div(C, step);
  const int64_t grain = kNormGrain / (kNormSumBlock * std::max<int64_t>(1, chunks));
  parallel_for(run, blocks, grain, [&](int64_t first, int64_t last) {
    for (int64_t block = first; block < last; ++block) {
      const int64_t begin = block * step, end = std::min(C, begin + step), count = (end - begin) * per_channel;
      double sums[kNormSumBlock] = {};
      for (int64_t chunk = 0; chunk < chunks; ++chunk) {
        const Part* const from = parts + (chunk * C + begin) * per_channel;
        for (int64_t j = 0; j < count; ++j) {
          sums[j] += from[j];
        }
      }
      for (int64_t c = begin; c < end; ++c) {
        const double* const of_channel = sums + (c - begin) * per_channel;
        grad[c] = static_cast<Number>(std::accumulate(of_channel, of_channel + per_channel, 0.0));
      }
    }
  });
}

}  // namespace wgk
