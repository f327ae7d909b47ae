#include "rmsprop_clip.h"

#include <algorithm>

#include "any_element.cuh"
#include "rmsprop_clip_update.cuh"

namespace wgk {
namespace {

constexpr int kThreads = 256;
constexpr int kPacks = 2;  // a thread's of every array, loaded before the first is stored
constexpr int64_t kChunkBytes = kThreads * kPacks * kPackBytes;  // a block's of every array
constexpr int kEntries = 60;
constexpr int kArrays = 5;  // param, square_avg, momentum_buffer, grad_avg, grad
constexpr int kGrad = 4;

// The chunks of tensors without gaps begin where a multiple of 16 bytes does, if it does so in all of their arrays.
struct Entry {
  void* array[kArrays];
  void* step;
  int64_t elements;
  unsigned first_block;
  uint8_t dtype, step_dtype;
};

// What one launch steps, small enough for the arguments of a kernel. A block finds its tensor by first_block.
struct Batch {
  RmspropStep step;
  unsigned long long* stats;
  int entries;
  Entry entry[kEntries];
};
static_assert(sizeof(Batch) <= 4096);

// How many elements past a multiple of 16 bytes every array is that the step uses; -1 where they differ.
template <class T>
WGK_HOST_DEVICE int common_offset(void* const (&arrays)[kArrays]) {
  const int first = pack_offset(static_cast<const T*>(arrays[0]));
  for (int k = 1; k < kArrays; ++k) {
    if (arrays[k] != nullptr && pack_offset(static_cast<const T*>(arrays[k])) != first) {
      return -1;
    }
  }
  return first;
}

// One element of every array, or a pack of them.
template <class Number>
struct Side {
  Number number[kArrays];
};

template <class T, int used>
struct Chunk {
  static constexpr int V = kPackOf<T>, kElements = kThreads * kPacks * V;
  const RmspropRule<T>& rule;
  void* const (&arrays)[kArrays];
  Clipped<T>& seen;

  WGK_HOST_DEVICE static constexpr bool uses(int k) { return (used >> k & 1) != 0; }
  WGK_DEVICE T* at(int k, int64_t i) const { return static_cast<T*>(arrays[k]) + i; }

  // What all elements become: but for the gradient, they are written.
  WGK_DEVICE void update(Side<T>& one) {
    rule.template update<uses(kGrad), uses(3), uses(2)>(one.number[0], one.number[kGrad], one.number[1],
                                                        one.number[2], one.number[3]);
    seen.look(rule, one.number[0]);
  }

  WGK_DEVICE void step_one(int64_t i) {
    Side<T> one{};
#pragma unroll
    for (int k = 0; k < kArrays; ++k) {
      if (uses(k)) {
        one.number[k] = *at(k, i);
      }
    }
    update(one);
#pragma unroll
    for (int k = 0; k < kGrad; ++k) {
      if (uses(k)) {
        *at(k, i) = one.number[k];
      }
    }
  }

  WGK_DEVICE void step_pack(const Side<Pack<T, V>>& packs, int64_t i) {
    Side<Pack<T, V>> stepped;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      Side<T> one{};
#pragma unroll
      for (int k = 0; k < kArrays; ++k) {
        if (uses(k)) {
          one.number[k] = packs.number[k].get(e);
        }
      }
      update(one);
#pragma unroll
      for (int k = 0; k < kGrad; ++k) {
        if (uses(k)) {
          stepped.number[k].set(e, one.number[k]);
        }
      }
    }
#pragma unroll
    for (int k = 0; k < kGrad; ++k) {
      if (uses(k)) {
        store_pack<V>(at(k, i), stepped.number[k]);
      }
    }
  }

  // The arrays' elements from `start` on, which begins a pack; those before `first` and from `last` on are others'.
  WGK_DEVICE void in_packs(int64_t start, int first, int last) {
    Side<Pack<T, V>> packs[kPacks];
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = (p * kThreads + static_cast<int>(threadIdx.x)) * V;
      if (i >= first && i + V <= last) {
#pragma unroll
        for (int k = 0; k < kArrays; ++k) {
          if (uses(k)) {
            packs[p].number[k] = load_pack<V>(static_cast<const T*>(at(k, start + i)));
          }
        }
      }
    }
#pragma unroll
    for (int p = 0; p < kPacks; ++p) {
      const int i = (p * kThreads + static_cast<int>(threadIdx.x)) * V;
      if (i >= first && i + V <= last) {
        step_pack(packs[p], start + i);
      } else {
#pragma unroll 1
        for (int j = max(i, first); j < min(i + V, last); ++j) {
          step_one(start + j);
        }
      }
    }
  }

  WGK_DEVICE void run(int64_t chunk, int64_t elements) {
    const int shift = common_offset<T>(arrays);
    if (shift < 0) {
      const int64_t end = min((chunk + 1) * kElements, elements);
#pragma unroll 1
      for (int64_t i = chunk * kElements + threadIdx.x; i < end; i += kThreads) {
        step_one(i);
      }
    } else {
      const int64_t start = chunk * kElements - shift;
      in_packs(start, start < 0 ? shift : 0,
               static_cast<int>(min(static_cast<int64_t>(kElements), elements - start)));
    }
  }
};

// used: bit k for array k.
template <int used>
__global__ void __launch_bounds__(kThreads, 2) rmsprop_clip_kernel(const __grid_constant__ Batch batch) {
  const RmspropNumber& found_inf = batch.step.found_inf;
  if (found_inf.at != nullptr && load_element(found_inf.dtype, found_inf.at, 0) != 0) {
    return;
  }
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
  const int64_t chunk = blockIdx.x - entry.first_block;
  if (entry.step != nullptr && chunk == 0 && threadIdx.x == 0) {
    const DType dtype = static_cast<DType>(entry.step_dtype);
    store_element(dtype, entry.step, 0, load_element(dtype, entry.step, 0) + 1);
  }
  with_type(static_cast<DType>(entry.dtype), [&](auto type) {
    using T = decltype(type);
    const RmspropRule<T> rule(batch.step);
    Clipped<T> seen(batch.stats != nullptr);
    Chunk<T, used>{rule, entry.array, seen}.run(chunk, entry.elements);
    seen.add_to(batch.stats);
  });
}

int64_t blocks_of(const Entry& entry) {
  return with_type(static_cast<DType>(entry.dtype), [&](auto type) {
    using T = decltype(type);
    const int64_t shift = std::max(common_offset<T>(entry.array), 0), chunk = kChunkBytes / int64_t{sizeof(T)};
    // One for an empty tensor, too: its step is counted.
    return std::max(int64_t{1}, ceil_div(entry.elements + shift, chunk));
  });
}

template <int used>
CudaStatus launch_batches(CudaStream stream, const RmspropTensor* tensors, int64_t count, Batch& batch) {
  constexpr int64_t kMostBlocks = INT32_MAX;
  int64_t blocks = 0;
  const auto flush = [&]() -> CudaStatus {
    const CudaStatus status = WGK_LAUNCH(rmsprop_clip_kernel<used>, static_cast<unsigned>(blocks), kThreads, 0, stream,
                                         batch);
    batch.entries = 0;
    blocks = 0;
    return status;
  };
  for (int64_t t = 0; t < count; ++t) {
    const RmspropTensor& tensor = tensors[t];
    Entry entry{{tensor.param, tensor.square_avg, tensor.momentum_buffer, tensor.grad_avg,
                 const_cast<void*>(tensor.grad)},
                tensor.step.at, tensor.count, 0, static_cast<uint8_t>(tensor.dtype),
                static_cast<uint8_t>(tensor.step.dtype)};
    const int64_t more = blocks_of(entry);
    if (more > kMostBlocks) {
      return 1;  // cudaErrorInvalidValue
    }
    if (batch.entries == kEntries || blocks + more > kMostBlocks) {
      const CudaStatus status = flush();
      if (status != 0) {
        return status;
      }
    }
    entry.first_block = static_cast<unsigned>(blocks);
    batch.entry[batch.entries++] = entry;
    blocks += more;
  }
  return batch.entries == 0 ? 0 : flush();
}

}  // namespace

CudaStatus rmsprop_clip_cuda(CudaStream stream, const RmspropTensor* tensors, int64_t count, const RmspropStep& step,
                             int64_t* stats) {
  if (count == 0) {
    return 0;
  }
  Batch batch{};
  batch.step = step;
  batch.stats = reinterpret_cast<unsigned long long*>(stats);
  const bool momentum = tensors[0].momentum_buffer != nullptr, centered = tensors[0].grad_avg != nullptr;
  const auto launch = tensors[0].grad == nullptr ? launch_batches<0b00001>
                      : momentum && centered     ? launch_batches<0b11111>
                      : momentum                 ? launch_batches<0b10111>
                      : centered                 ? launch_batches<0b11011>
                                                 : launch_batches<0b10011>;
  return launch(stream, tensors, count, batch);
}

}  // namespace wgk
