// What a status of a CUDA launch says.
#pragma once

#include "common.h"

namespace wgk {

const char* cuda_status_text(CudaStatus status);

}  // namespace wgk
