#include "adapter.h"

#ifdef WGK_CUDA
#include <dlfcn.h>
#endif

#include <algorithm>
#include <vector>

#include "../core/cuda_status.h"

namespace wgk {

bool has_dense_rows(const Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return true;
  }
  const int64_t D = features(tensor);
  if (batch(tensor) != 1 && tensor.stride(0) != D) {
    return false;
  }
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 1; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) {
      dims.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) {
      return false;
    }
    expected *= size;
  }
  return true;
}

#ifndef WGK_CUDA

void check_one_device(const char*, std::initializer_list<const Tensor*>) {}

#else

namespace {

std::pair<int32_t, int32_t> device_of(const Tensor& tensor) {
  int32_t type;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(tensor.get(), &type));
  return {type, tensor.get_device_index()};
}

std::string device_name(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : tensor.is_cpu() ? "cpu" : "another";
}

// Linking libtorch_cuda would keep the library from loading into a torch without CUDA.
CudaStream current_stream(int32_t device) {
  using Function = AOTITorchError (*)(int32_t, void**);
  static const auto function = [] {
    void* torch_cuda = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return reinterpret_cast<Function>(torch_cuda ? dlsym(torch_cuda, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  STD_TORCH_CHECK(function != nullptr, "wgan_kernels: a tensor on a GPU, but this torch has no CUDA");
  CudaStream stream = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(function(device, &stream));
  return stream;
}

}  // namespace

void check_one_device(const char* name, std::initializer_list<const Tensor*> tensors) {
  const Tensor& first = **tensors.begin();
  for (const Tensor* tensor : tensors) {
    STD_TORCH_CHECK(tensor == nullptr || device_of(*tensor) == device_of(first), "wgan_kernels::", name,
                    ": every tensor must be on one device, got ", device_name(first), " and ", device_name(*tensor));
  }
}

CudaLaunch::CudaLaunch(const Tensor& tensor)
    : stream(current_stream(tensor.get_device_index())), guard_(tensor.get_device_index()) {}

void CudaLaunch::check(CudaStatus status) const {
  STD_TORCH_CHECK(status == 0, "wgan_kernels: a CUDA launch failed: ", cuda_status_text(status));
}

#endif

}  // namespace wgk
