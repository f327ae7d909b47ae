#include "cuda_status.h"

#include <cuda_runtime.h>

namespace wgk {

const char* cuda_status_text(CudaStatus status) { return cudaGetErrorString(static_cast<cudaError_t>(status)); }

}  // namespace wgk
