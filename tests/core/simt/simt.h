// CUDA C++ for the compiler of the host: what a kernel file finds under the names of CUDA. See engine.h.
//
// In place of inline PTX a wrapper has a branch `#ifdef WGK_SIMT`; what such an instruction does with a whole warp is
// written with simt::warp_collective, as the shuffles are (warp.h).
#pragma once

// The first of all, before the names of CUDA mean the shim's.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <vector_functions.h>
#include <vector_types.h>

#include "device.h"
#include "engine.h"
#include "warp.h"

#undef __launch_bounds__
#undef __grid_constant__
#define __launch_bounds__(...)
#define __grid_constant__

#define threadIdx (::simt::self->thread_idx)
#define blockIdx (::simt::self->block_idx)
#define blockDim (::simt::self->block_dim)
#define gridDim (::simt::self->grid_dim)
constexpr int warpSize = 32;

inline void __syncthreads(WGK_SIMT_HERE) { simt::block_barrier({file, line}); }
inline void __syncwarp(unsigned mask = 0xffffffffu, WGK_SIMT_HERE) { simt::warp_barrier(mask, {file, line}); }
inline void __threadfence() { simt::fence(); }

// A static shared array of `count` elements, 16-byte aligned; and all of the dynamic shared memory.
#define WGK_SHARED(type, name, count)            \
  static const char name##_declaration = 0;      \
  type(&name)[count] = *reinterpret_cast<type(*)[count]>( \
      ::simt::shared_array(&name##_declaration, sizeof(type[count])))
#define WGK_DYN_SHARED(type, name) type* const name = static_cast<type*>(::simt::dynamic_shared())

#define WGK_LAUNCH(kernel, grid, block, shared_bytes, stream, ...) \
  (static_cast<void>(stream), ::simt::launch(kernel, grid, block, shared_bytes, __VA_ARGS__))
