#include "weight_clip.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <vector>

#include "weight_clip_runs.h"

#define WGK_KERNELS "weight_clip_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kChunk = 1 << 15;          // elements a thread takes at a time
constexpr int64_t kSerial = 3 * (1 << 15);   // below this a second thread costs more than it saves

struct Piece {
  void* data;
  DType dtype;
  int64_t count, stride;

  auto key() const { return std::make_tuple(reinterpret_cast<uintptr_t>(data), count, stride); }
};

}  // namespace

void clip_weights(Isa isa, ParallelFor run, const ClipTensor* tensors, int64_t count, double low, double high) {
  const auto clip_elements = WGK_PICK(isa, clip_elements);
  std::vector<Piece> pieces;
  pieces.reserve(count);
  int64_t total = 0;
  for (int64_t t = 0; t < count; ++t) {
    const Runs runs(tensors[t]);
    const int64_t bytes = element_size(tensors[t].dtype);
    for (int64_t r = 0; r < runs.count; ++r) {
      char* data = static_cast<char*>(tensors[t].data) + runs.offset(r) * bytes;
      for (int64_t begin = 0; begin < runs.length; begin += kChunk) {
        pieces.push_back({data + begin * runs.stride * bytes, tensors[t].dtype, std::min(kChunk, runs.length - begin),
                          runs.stride});
      }
      total += runs.length;
    }
  }
  const auto clip_pieces = [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      clip_elements(pieces[p].dtype, pieces[p].data, pieces[p].count, pieces[p].stride, low, high);
    }
  };
  if (total < kSerial) {
    clip_pieces(0, static_cast<int64_t>(pieces.size()));
  } else {
    // A tensor that comes twice goes to one thread only.
    std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.key() < b.key(); });
    const auto same = [](const Piece& a, const Piece& b) { return a.key() == b.key(); };
    pieces.erase(std::unique(pieces.begin(), pieces.end(), same), pieces.end());
    parallel_for(run, static_cast<int64_t>(pieces.size()), 1, clip_pieces);
  }
}

}  // namespace wgk
