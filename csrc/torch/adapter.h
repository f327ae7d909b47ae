// Between torch tensors and the core: dtypes, layouts, devices, torch's thread pool and streams.
#pragma once

#include <torch/csrc/stable/accelerator.h>
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <array>
#include <initializer_list>
#include <utility>
#include <vector>

#include "../core/common.h"

namespace wgk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// The dtypes the kernels know; Python has refused the others with a better message.
// Tensor::scalar_type() asks the library for each code in turn at every call, which shows in lists of small tensors.
inline bool find_dtype(const Tensor& tensor, DType& dtype) {
  static const std::array<std::pair<int32_t, DType>, 4> known = {{{aoti_torch_dtype_float32(), DType::float32},
                                                                  {aoti_torch_dtype_float64(), DType::float64},
                                                                  {aoti_torch_dtype_bfloat16(), DType::bfloat16},
                                                                  {aoti_torch_dtype_float16(), DType::float16}}};
  int32_t code;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(tensor.get(), &code));
  for (const auto& [known_code, known_dtype] : known) {
    if (code == known_code) {
      dtype = known_dtype;
      return true;
    }
  }
  return false;
}

inline DType dtype_of(const Tensor& tensor) {
  DType dtype;
  STD_TORCH_CHECK(find_dtype(tensor, dtype), "wgan_kernels: expected float64, float32, bfloat16 or float16");
  return dtype;
}

// The dtype of sums and of one number per sample: float64 for float64, else float32.
inline ScalarType wide_type(DType dtype) {
  return dtype == DType::float64 ? ScalarType::Double : ScalarType::Float;
}

// A dense tensor, not initialised, on the device of `like`: past the dispatcher, whose factories cost a microsecond.
inline Tensor new_dense(const Tensor& like, const std::vector<int64_t>& sizes, ScalarType type) {
  std::vector<int64_t> strides(sizes.size());
  int64_t step = 1;
  for (size_t d = sizes.size(); d-- > 0; step *= sizes[d]) {
    strides[d] = step;
  }
  int32_t device_type, device_index;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  const int32_t dtype = torch::stable::detail::to<int32_t>(torch::stable::detail::from(type));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(sizes.size()), sizes.data(),
                                                         strides.data(), dtype, device_type, device_index, &handle));
  return Tensor(handle);
}

// A dense tensor of the layout of `like`, itself dense; not initialised; past the dispatcher as above.
inline Tensor new_like(const Tensor& like) {
  std::array<int64_t, 8> sizes, strides;
  const auto dims = static_cast<size_t>(like.dim());
  if (dims > sizes.size()) {
    return torch::stable::empty_like(like);
  }
  for (size_t d = 0; d < dims; ++d) {
    sizes[d] = like.size(static_cast<int64_t>(d));
    strides[d] = like.stride(static_cast<int64_t>(d));
  }
  int32_t device_type, device_index, dtype;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  AtenTensorHandle handle;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<int64_t>(dims), sizes.data(), strides.data(), dtype,
                                                         device_type, device_index, &handle));
  return Tensor(handle);
}

// Whether two tensors of one shape lie in memory alike.
inline bool same_steps(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.stride(d) != b.stride(d) && a.size(d) != 1) {
      return false;
    }
  }
  return true;
}

// Whether [B, C, ...] lies in memory as [B, ..., C].
inline bool is_channels_last(const Tensor& x) {
  int64_t expected = x.dim() > 2 ? x.size(1) : 0;
  for (int64_t d = x.dim() - 1; d >= 2; expected *= x.size(d--)) {
    if (x.stride(d) != expected && x.size(d) != 1) {
      return false;
    }
  }
  return x.dim() > 2 && x.stride(1) == 1 && (x.stride(0) == expected || x.size(0) == 1);
}

// The tensor itself where it is contiguous already, which is known without asking the dispatcher.
inline Tensor dense(const Tensor& tensor) {
  return tensor.is_contiguous() ? tensor : torch::stable::contiguous(tensor);
}

// torch's thread pool, as the core takes it.
inline void torch_threads(int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*),
                          void* context) {
  STABLE_TORCH_ERROR_CODE_CHECK(torch_parallel_for(begin, end, grain, body, context));
}

// The dispatcher looks at kinds of devices alone, and only at some: every tensor of a call (null for one left out) has
// to be on the device of the first.
void check_one_device(const char* name, std::initializer_list<const Tensor*> tensors);

// Makes the tensor's device the current one, and launches on the stream that torch uses there.
class CudaLaunch {
 public:
  explicit CudaLaunch(const Tensor& tensor);
  void check(CudaStatus status) const;
  CudaStream stream = nullptr;

 private:
  torch::stable::accelerator::DeviceGuard guard_;
};

// Runs the core on the device of the tensor: cpu(), or cuda(stream), which returns a status. `cuda` is to be generic,
// [&](auto stream): a build without CUDA then does not compile its body, whose functions that build lacks.
template <class Cpu, class Cuda>
void on_device_of([[maybe_unused]] const Tensor& tensor, const Cpu& cpu, [[maybe_unused]] const Cuda& cuda) {
#ifdef WGK_CUDA
  if (tensor.is_cuda()) {
    const CudaLaunch launch(tensor);
    launch.check(cuda(launch.stream));
    return;
  }
#endif
  cpu();
}

// Device memory for the length of a launch: torch's allocator hands it out again in the order of the stream.
inline Tensor new_workspace(const Tensor& like, int64_t bytes) { return new_dense(like, {bytes}, ScalarType::Byte); }

// A tensor [B, D...] as the core sees it: B rows of D elements.
inline int64_t batch(const Tensor& tensor) { return tensor.size(0); }

inline int64_t features(const Tensor& tensor) {
  int64_t product = 1;
  for (int64_t d = 1; d < tensor.dim(); ++d) {
    product *= tensor.size(d);
  }
  return product;
}

// Whether each sample of [B, D...] fills D elements in a row, in whatever order of its dimensions (channels_last).
bool has_dense_rows(const Tensor& tensor);

// Tensors of one shape that a kernel may walk together, row by row.
// Where their layouts differ or leave gaps it gets contiguous copies.
template <size_t count>
std::array<Tensor, count> matching_rows(const std::array<Tensor, count>& tensors) {
  bool match = has_dense_rows(tensors[0]);
  for (size_t i = 1; i < count && match; ++i) {
    for (int64_t d = 0; d < tensors[0].dim() && match; ++d) {
      match = tensors[i].stride(d) == tensors[0].stride(d) || tensors[0].size(d) == 1;
    }
  }
  if (match) {
    return tensors;
  }
  std::array<Tensor, count> copies = tensors;
  for (Tensor& copy : copies) {
    copy = torch::stable::contiguous(copy);
  }
  return copies;
}

// A result computed beside `rows` (from matching_rows), in the layout that torch.empty_like(model) has.
inline Tensor in_layout_of(const Tensor& model, const Tensor& rows, Tensor result) {
  if (rows.get() == model.get()) {
    return result;
  }
  Tensor out = torch::stable::empty_like(model);
  return torch::stable::copy_(out, result);
}

}  // namespace wgk
