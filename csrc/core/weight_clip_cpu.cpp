#include "weight_clip.h"

#include <algorithm>
#include <cstdint>
#include <tuple>
#include <utility>
#include <vector>

#define WGK_KERNELS "weight_clip_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kChunk = 1 << 15;          // elements a thread takes at a time
constexpr int64_t kSerial = 3 * (1 << 15);   // below this a second thread costs more than it saves

// A tensor as runs of equally spaced elements: dense tensors, in whatever order of dimensions, are one run.
struct Runs {
  int64_t count = 1, length = 1, stride = 1;
  std::vector<std::pair<int64_t, int64_t>> outer;  // (size, stride), fastest first

  explicit Runs(const ClipTensor& tensor) {
    if (tensor.dims == 1) {
      length = tensor.sizes[0];
      stride = tensor.strides[0];
      return;
    }
    std::vector<std::pair<int64_t, int64_t>> dims;
    for (int64_t d = 0; d < tensor.dims; ++d) {
      if (tensor.sizes[d] != 1) {
        dims.emplace_back(tensor.strides[d], tensor.sizes[d]);
      }
    }
    std::sort(dims.begin(), dims.end());
    if (!dims.empty()) {
      stride = dims[0].first;
      length = dims[0].second;
    }
    for (size_t d = 1; d < dims.size(); ++d) {
      if (outer.empty() && dims[d].first == stride * length) {
        length *= dims[d].second;
      } else {
        outer.emplace_back(dims[d].second, dims[d].first);
        count *= dims[d].second;
      }
    }
  }

  int64_t offset(int64_t run) const {
    int64_t elements = 0;
    for (const auto& [size, step] : outer) {
      elements += run % size * step;
      run /= size;
    }
    return elements;
  }
};

int64_t element_size(DType dtype) { return dtype == DType::float64 ? 8 : dtype == DType::float32 ? 4 : 2; }

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
