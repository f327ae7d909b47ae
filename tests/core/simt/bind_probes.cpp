// Kernels with the mistakes that the shim is there to find, and one that uses all that it offers rightly.
#include "binding.h"
#include "launch.h"

namespace wgk {
namespace {

constexpr unsigned kAll = 0xffffffffu;

__global__ void barrier_in_a_branch(double*) {
  if (threadIdx.x < 40) {
    __syncthreads();
  }
}

__global__ void two_barriers(double*) {
  if (threadIdx.x < 40) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}

__global__ void shuffle_in_a_branch(double* out) {
  if (threadIdx.x < 40) {
    out[threadIdx.x] = __shfl_sync(kAll, 1.0, 0);
  }
}

__global__ void shuffle_from_a_lane_not_in_the_mask(double* out) {
  if (threadIdx.x % 32 < 16) {
    out[threadIdx.x] = __shfl_sync(0xffffu, 1.0, 20);
  }
}

__global__ void lane_not_in_its_mask(double* out) { out[threadIdx.x] = __shfl_sync(0xffffu, 1.0, 0); }

__global__ void different_masks(double*) { __syncwarp(threadIdx.x % 2 ? kAll : 0x55555555u | 1u << threadIdx.x % 32); }

__global__ void return_before_a_shuffle(double* out) {
  if (threadIdx.x % 32 != 2) {
    out[threadIdx.x] = __shfl_sync(kAll, 1.0, 0);
  }
}

__global__ void barrier_before_a_shuffle(double* out) {
  if (threadIdx.x % 32 == 2) {
    __syncthreads();
  }
  out[threadIdx.x] = __shfl_sync(kAll, 1.0, 0);
}

__global__ void unwritten_shared(double* out) {
  WGK_SHARED(double, part, 64);
  if (threadIdx.x > 0) {
    part[threadIdx.x] = 1;
  }
  __syncthreads();
  out[threadIdx.x] = part[threadIdx.x];
}

__global__ void past_a_shared_array(double* out) {
  WGK_SHARED(double, part, 63);
  part[threadIdx.x] = 1;
  out[threadIdx.x] = part[threadIdx.x];
}

__global__ void missing_barrier(double* out) {
  WGK_SHARED(double, part, 64);
  part[threadIdx.x] = threadIdx.x;
  out[threadIdx.x] = part[threadIdx.x ^ 1] * 0;  // the right number in any order
}

__global__ void shuffle_for_a_barrier(double* out) {
  WGK_SHARED(double, part, 64);
  part[threadIdx.x] = 0;
  const double own = __shfl_sync(kAll, 0.0, 0);
  out[threadIdx.x] = own + part[threadIdx.x ^ 1];
}

__global__ void blocks_that_write_one_element(double* out) { out[threadIdx.x] = 0; }

// The last block done adds up what all have written: [gridDim.x] of out, then the sum.
template <bool first_fence, bool second_fence>
__global__ void last_block(double* out, unsigned* done) {
  WGK_SHARED(bool, is_last, 1);
  if (threadIdx.x == 0) {
    out[blockIdx.x] = 0;
    if (first_fence) {
      __threadfence();
    }
    is_last[0] = atomicAdd(done, 1u) == gridDim.x - 1;
    if (second_fence) {
      __threadfence();
    }
  }
  __syncthreads();
  if (is_last[0] && threadIdx.x == 1) {
    for (unsigned block = 0; block < gridDim.x; ++block) {
      out[gridDim.x] += out[block];
    }
  }
}

// Numbers 0 to 63 through dynamic shared memory and every collective.
__global__ void all_right(double* out) {
  WGK_DYN_SHARED(double, numbers);
  const unsigned t = threadIdx.x, lane = t % 32;
  numbers[t] = t;
  __syncwarp();
  double x = numbers[t ^ 1];                      // of the same warp
  x = __shfl_xor_sync(kAll, x, 1);                // t
  x += __shfl_down_sync(kAll, x, 1, 8) - __shfl_up_sync(kAll, x, 1, 8);
  x -= (lane % 8 != 7) + (lane % 8 != 0);         // t
  const bool all = __all_sync(kAll, x == t), any = __any_sync(kAll, lane == 3);
  const unsigned odd = __ballot_sync(kAll, lane & 1);
  __syncthreads();
  out[t] = numbers[63 - t] * (all && any && odd == 0xaaaaaaaau);
}

// The same numbers, with masks of which none is that of the lane before.
__global__ void masks_in_turn(double* out) {
  const unsigned t = threadIdx.x, mask = t % 2 ? 0xaaaaaaaau : 0x55555555u;
  double x = 63 - t;
  for (int i = 0; i < 3; ++i) {
    x = __shfl_xor_sync(mask, x, 2);
    __syncwarp(mask);
  }
  __syncthreads();
  out[t] = __shfl_xor_sync(kAll, x, 2);
}

const Binding bind_probes([](py::module_& m) {
  m.def("probe", [](const Run& run, const std::string& name, py::array_t<double> out, unsigned blocks,
                    int64_t shared_bytes) {
    const std::pair<const char*, void (*)(double*)> probes[] = {
        {"barrier_in_a_branch", barrier_in_a_branch},
        {"two_barriers", two_barriers},
        {"shuffle_in_a_branch", shuffle_in_a_branch},
        {"shuffle_from_a_lane_not_in_the_mask", shuffle_from_a_lane_not_in_the_mask},
        {"lane_not_in_its_mask", lane_not_in_its_mask},
        {"different_masks", different_masks},
        {"return_before_a_shuffle", return_before_a_shuffle},
        {"barrier_before_a_shuffle", barrier_before_a_shuffle},
        {"unwritten_shared", unwritten_shared},
        {"past_a_shared_array", past_a_shared_array},
        {"missing_barrier", missing_barrier},
        {"shuffle_for_a_barrier", shuffle_for_a_barrier},
        {"blocks_that_write_one_element", blocks_that_write_one_element},
        {"all_right", all_right},
        {"masks_in_turn", masks_in_turn}};
    const std::pair<const char*, void (*)(double*, unsigned*)> fences[] = {
        {"no_first_fence", last_block<false, true>},
        {"no_second_fence", last_block<true, false>},
        {"both_fences", last_block<true, true>}};
    unsigned done = 0;
    double* memory = out.mutable_data();
    const auto bytes = static_cast<size_t>(shared_bytes);
    for (const auto& [known, kernel] : probes) {
      if (name == known) {
        return launch(run, [&, kernel = kernel] { return WGK_LAUNCH(kernel, blocks, 64, bytes, nullptr, memory); });
      }
    }
    for (const auto& [known, kernel] : fences) {
      if (name == known) {
        return launch(run,
                      [&, kernel = kernel] { return WGK_LAUNCH(kernel, blocks, 64, bytes, nullptr, memory, &done); });
      }
    }
    throw std::invalid_argument("no probe " + name);
  });
});

}  // namespace
}  // namespace wgk
