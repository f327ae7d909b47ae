#include "../core/weight_clip.h"

#include "operators.h"

namespace wgk::operators {

// Everything is checked before anything is written; Python words the errors, so that they are the same everywhere.
void clip_weights_(const std::vector<Tensor>& params, double low, double high) {
  static const int64_t kUnitStride = 1;
  std::vector<ClipTensor> tensors(params.size());
  std::vector<int64_t> lengths(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& param = params[i];
    ClipTensor& tensor = tensors[i];
    STD_TORCH_CHECK(find_dtype(param, tensor.dtype), "params[", i, "] is not a floating tensor");
    check_one_device("clip_weights_", {&params[0], &param});
    tensor.data = param.data_ptr();
    if (param.is_contiguous()) {
      lengths[i] = param.numel();
      tensor.dims = 1;
      tensor.sizes = &lengths[i];
      tensor.strides = &kUnitStride;
      continue;
    }
    tensor.dims = param.dim();
    tensor.sizes = param.sizes().data();
    tensor.strides = param.strides().data();
    for (int64_t d = 0; d < tensor.dims; ++d) {
      STD_TORCH_CHECK(tensor.strides[d] != 0 || tensor.sizes[d] <= 1, "params[", i, "] is an expanded tensor");
    }
  }
  if (params.empty()) {
    return;
  }
  const int64_t count = static_cast<int64_t>(tensors.size());
  on_device_of(
      params[0], [&] { clip_weights(cpu_isa(), torch_threads, tensors.data(), count, low, high); },
      [&](auto stream) { return clip_weights_cuda(stream, tensors.data(), count, low, high); });
}

}  // namespace wgk::operators
