// Points on lines: out = mix * real + (1 - mix) * fake.
// real, fake, out: [B, D] of dtype, dense. mix: [B], double for float64, else float.
#pragma once

#include "common.h"

namespace wgk {

void interpolate(Isa isa, ParallelFor run, DType dtype, int64_t B, int64_t D, const void* real, const void* fake,
                 const void* mix, void* out);

// The same of device memory: enqueued on the stream.
CudaStatus interpolate_cuda(CudaStream stream, DType dtype, int64_t B, int64_t D, const void* real, const void* fake,
                            const void* mix, void* out);

}  // namespace wgk
