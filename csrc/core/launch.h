// How kernels are launched and shared arrays declared. The same kernels are compiled by nvcc and, with WGK_SIMT, by the
// host's compiler against a shim that runs them on the CPU (tests/core/simt); hence the macros.
#pragma once

#include "common.h"

#ifdef WGK_SIMT

#include "simt.h"

#else

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <utility>

// A static shared array of `count` elements, 16-byte aligned; and all of the dynamic shared memory.
#define WGK_SHARED(type, name, count) __shared__ __align__(16) type name[count]
#define WGK_DYN_SHARED(type, name)                                            \
  extern __shared__ __align__(16) unsigned char wgk_dynamic_shared[]; \
  type* const name = reinterpret_cast<type*>(wgk_dynamic_shared)

// Enqueues kernel(arguments...) and returns the CudaStatus of that. A template with a comma goes in parentheses:
// WGK_LAUNCH((kernel<T, 4>), ...).
#define WGK_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  ::wgk::launch(kernel, grid, block, shared_bytes, stream, __VA_ARGS__)

namespace wgk {

constexpr size_t kDefaultSharedBytes = 48 << 10;  // more of it a kernel has to ask for

template <class... Parameters, class... Arguments>
CudaStatus launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, CudaStream stream,
                  Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "arguments of a kernel are limited to 4 KB");
  if (shared_bytes > kDefaultSharedBytes) {
    const cudaError_t status = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                                    static_cast<int>(shared_bytes));
    if (status != cudaSuccess) {
      return status;
    }
  }
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = block;
  config.dynamicSmemBytes = shared_bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  return cudaLaunchKernelEx(&config, kernel, std::forward<Arguments>(arguments)...);
}

}  // namespace wgk

#endif
