// How a [B, D] array is split among threads: rows in blocks of a fixed size, so that sums come out the same for any
// number of threads.
#pragma once

#include <algorithm>

#include "common.h"

namespace wgk {

constexpr int64_t kRowBlock = 1 << 14;    // elements of a row that are summed by one thread
constexpr int64_t kRowGrain = 3 << 14;    // elements below which a second thread costs more than it saves

struct RowBlocks {
  int64_t B, D, per_row;

  RowBlocks(int64_t B, int64_t D) : B(B), D(D), per_row(std::max<int64_t>(1, ceil_div(D, kRowBlock))) {}

  int64_t count() const { return B * per_row; }
  int64_t grain() const { return kRowGrain / std::max<int64_t>(1, std::min(D, kRowBlock)); }

  // Calls f(block, row, first element of the row, elements) for each block, in parallel.
  template <class F>
  void for_each(ParallelFor run, const F& f) const {
    parallel_for(run, count(), grain(), [&](int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; ++block) {
        const int64_t first = block % per_row * kRowBlock;
        f(block, block / per_row, first, std::min(kRowBlock, D - first));
      }
    });
  }

  // Adds up the blocks of a row in order.
  double row_sum(const double* block_sums, int64_t row) const {
    double sum = 0;
    for (int64_t k = 0; k < per_row; ++k) {
      sum += block_sums[row * per_row + k];
    }
    return sum;
  }
};

}  // namespace wgk
