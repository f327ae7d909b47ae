#include <algorithm>
#include <tuple>
#include <utility>
#include <vector>

#include "elements.cuh"
#include "weight_clip.h"
#include "weight_clip_runs.h"

namespace wgk {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 4;  // a thread's, loaded before the first is stored
constexpr int64_t kChunkBytes = kThreads * kPacks * kPackBytes;  // a block's, or as many elements with gaps
constexpr int kEntries = 120;
constexpr int kNumbers = 136;  // two for each of 64 dimensions, and some more

struct Entry {
  void* data;
  int64_t elements;
  unsigned first_block;
  uint16_t numbers;  // where the sizes and strides begin
  uint8_t dims;      // 0 for one run without gaps
  uint8_t dtype;
};

// What one launch clips, small enough for the arguments of a kernel. A block finds its tensor by first_block.
struct Batch {
  double low, high;
  int entries, used_numbers;
  Entry entry[kEntries];
  int64_t numbers[kNumbers];  // (size, stride) pairs, the fastest first
};
static_assert(sizeof(Batch) <= 4096);

// A NaN, for which both comparisons fail, stays as it is, and so do the bits of what is inside the bounds.
template <class T>
struct Bounds {
  Wide<T> low, high;

  // Rounded to T.
  WGK_DEVICE Bounds(double low, double high)
      : low(widen(narrow<T>(static_cast<Wide<T>>(low)))), high(widen(narrow<T>(static_cast<Wide<T>>(high)))) {}

  WGK_DEVICE T clip(T w) const {
    const T at_least = widen(w) < low ? narrow<T>(low) : w;
    return widen(at_least) > high ? narrow<T>(high) : at_least;
  }
};

// One chunk of a tensor without gaps. The first chunk begins where a multiple of 16 bytes does.
template <class T>
WGK_DEVICE void clip_dense(T* w, int64_t chunk, int64_t elements, const Bounds<T>& bounds) {
  constexpr int V = kPackOf<T>, kChunk = kThreads * kPacks * V;
  const int shift = pack_offset(w);
  const int64_t start = chunk * kChunk - shift;
  w += start;
  const int begin = start < 0 ? shift : 0;
  const int end = static_cast<int>(min(static_cast<int64_t>(kChunk), elements - start));
  Pack<T, V> packs[kPacks];
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = (k * kThreads + static_cast<int>(threadIdx.x)) * V;
    if (i >= begin && i + V <= end) {
      packs[k] = load_pack<V>(w + i);
    }
  }
#pragma unroll
  for (int k = 0; k < kPacks; ++k) {
    const int i = (k * kThreads + static_cast<int>(threadIdx.x)) * V;
    if (i >= begin && i + V <= end) {
      Pack<T, V> clipped;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        clipped.set(e, bounds.clip(packs[k].get(e)));
      }
      store_pack<V>(w + i, clipped);
    } else {
#pragma unroll 1
      for (int j = max(i, begin); j < min(i + V, end); ++j) {
        w[j] = bounds.clip(w[j]);
      }
    }
  }
}

// One chunk of a tensor with gaps.
template <class T>
WGK_DEVICE void clip_strided(T* w, int64_t chunk, int64_t elements, const int64_t* numbers, int dims,
                             const Bounds<T>& bounds) {
  constexpr int64_t kChunk = kThreads * kPacks * kPackOf<T>;
  const int64_t end = min((chunk + 1) * kChunk, elements);
  for (int64_t i = chunk * kChunk + threadIdx.x; i < end; i += kThreads) {
    int64_t rest = i, at = 0;
    for (int d = 0; d < dims; ++d) {
      const int64_t size = numbers[2 * d], stride = numbers[2 * d + 1];
      at += (d + 1 < dims ? rest % size : rest) * stride;
      rest /= size;
    }
    w[at] = bounds.clip(w[at]);
  }
}

template <class T>
WGK_DEVICE void clip_chunk(const Batch& batch, const Entry& entry) {
  const Bounds<T> bounds(batch.low, batch.high);
  const int64_t chunk = blockIdx.x - entry.first_block;
  T* const w = static_cast<T*>(entry.data);
  if (entry.dims == 0) {
    clip_dense<T>(w, chunk, entry.elements, bounds);
  } else {
    clip_strided<T>(w, chunk, entry.elements, batch.numbers + entry.numbers, entry.dims, bounds);
  }
}

__global__ void __launch_bounds__(kThreads) weight_clip_kernel(const __grid_constant__ Batch batch) {
  int first = 0, last = batch.entries - 1;
  while (first < last) {
    const int middle = (first + last + 1) / 2;
    if (batch.entry[middle].first_block <= blockIdx.x) {
      first = middle;
    } else {
      last = middle - 1;
    }
  }
  const Entry& entry = batch.entry[first];
  switch (static_cast<DType>(entry.dtype)) {
    case DType::float64:
      return clip_chunk<double>(batch, entry);
    case DType::float32:
      return clip_chunk<float>(batch, entry);
    case DType::bfloat16:
      return clip_chunk<bfloat16>(batch, entry);
    case DType::float16:
      return clip_chunk<float16>(batch, entry);
  }
}

// A tensor in as few dimensions as can be; none for one run without gaps.
struct Piece {
  void* data;
  DType dtype;
  int64_t elements;
  std::vector<std::pair<int64_t, int64_t>> dims;  // (size, stride), fastest first

  explicit Piece(const ClipTensor& tensor) : data(tensor.data), dtype(tensor.dtype) {
    const Runs runs(tensor);
    elements = runs.count * runs.length;
    if (runs.stride != 1 || !runs.outer.empty()) {
      dims.emplace_back(runs.length, runs.stride);
      dims.insert(dims.end(), runs.outer.begin(), runs.outer.end());
    }
  }

  auto key() const { return std::tie(data, dtype, elements, dims); }
  int64_t blocks() const {
    const int64_t size = element_size(dtype);
    const int64_t shift = dims.empty() ? reinterpret_cast<uintptr_t>(data) % kPackBytes / size : 0;
    return ceil_div(elements + shift, kChunkBytes / size);
  }
};

// Fills batches and launches them as they are full.
class Launcher {
 public:
  Launcher(CudaStream stream, double low, double high) : stream_(stream) {
    batch_.low = low;
    batch_.high = high;
  }

  CudaStatus add(const Piece& piece) {
    const int64_t blocks = piece.blocks(), numbers = 2 * static_cast<int64_t>(piece.dims.size());
    if (numbers > kNumbers || blocks > kMostBlocks) {
      return kInvalidValue;
    }
    if (batch_.entries == kEntries || batch_.used_numbers + numbers > kNumbers || blocks_ + blocks > kMostBlocks) {
      const CudaStatus status = flush();
      if (status != 0) {
        return status;
      }
    }
    batch_.entry[batch_.entries++] = {piece.data, piece.elements, static_cast<unsigned>(blocks_),
                                      static_cast<uint16_t>(batch_.used_numbers),
                                      static_cast<uint8_t>(piece.dims.size()), static_cast<uint8_t>(piece.dtype)};
    for (const auto& [size, stride] : piece.dims) {
      batch_.numbers[batch_.used_numbers++] = size;
      batch_.numbers[batch_.used_numbers++] = stride;
    }
    blocks_ += blocks;
    return 0;
  }

  CudaStatus flush() {
    if (batch_.entries == 0) {
      return 0;
    }
    const auto blocks = static_cast<unsigned>(blocks_);
    const CudaStatus status = WGK_LAUNCH(weight_clip_kernel, blocks, kThreads, 0, stream_, batch_);
    batch_.entries = batch_.used_numbers = 0;
    blocks_ = 0;
    return status;
  }

 private:
  static constexpr int64_t kMostBlocks = INT32_MAX;
  static constexpr CudaStatus kInvalidValue = 1;  // cudaErrorInvalidValue

  CudaStream stream_;
  Batch batch_{};
  int64_t blocks_ = 0;
};

}  // namespace

CudaStatus clip_weights_cuda(CudaStream stream, const ClipTensor* tensors, int64_t count, double low, double high) {
  std::vector<Piece> pieces(tensors, tensors + count);
  // A tensor that comes twice is clipped once: two blocks must not write it.
  std::sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) { return a.key() < b.key(); });
  const auto same = [](const Piece& a, const Piece& b) { return a.key() == b.key(); };
  pieces.erase(std::unique(pieces.begin(), pieces.end(), same), pieces.end());
  Launcher launcher(stream, low, high);
  for (const Piece& piece : pieces) {
    const CudaStatus status = piece.elements == 0 ? 0 : launcher.add(piece);
    if (status != 0) {
      return status;
    }
  }
  return launcher.flush();
}

}  // namespace wgk
