#include "../core/bias_leaky_relu.h"

#include <limits>

#include "operators.h"

namespace wgk::operators {
namespace {

BiasLeakyRelu settings(double negative_slope, double gain, std::optional<double> clamp) {
  // The output alone says which side of 0 a number was on.
  STD_TORCH_CHECK(negative_slope >= 0 && gain >= 0,
                  "wgan_kernels::bias_leaky_relu: negative_slope or gain is negative");
  return {negative_slope, gain, clamp.value_or(std::numeric_limits<double>::infinity())};
}

// The channels of a tensor, which sets the order in which all are gone through, and what the core is given of it: the
// tensor itself, or a copy where it is neither contiguous nor channels_last.
struct Channels {
  explicit Channels(const Tensor& like) : dtype(dtype_of(like)), like(like) {
    const bool last = !like.is_contiguous() && is_channels_last(like);
    rows = last ? like : dense(like);
    B = like.dim() > 0 ? like.size(0) : 1;
    C = like.dim() > 1 ? like.size(1) : 1;
    for (int64_t d = 2; d < like.dim(); ++d) {
      (last ? B : S) *= like.size(d);
    }
  }

  // Another tensor in this order.
  Tensor ordered(const Tensor& tensor) const {
    STD_TORCH_CHECK(dtype_of(tensor) == dtype && tensor.dim() == like.dim() &&
                        tensor.numel() == like.numel(),
                    "wgan_kernels::bias_leaky_relu: a gradient does not fit y");
    if ((tensor.is_contiguous() && rows.is_contiguous()) || same_steps(tensor, rows)) {
      return tensor;
    }
    Tensor copy = new_like(rows);
    return torch::stable::copy_(copy, tensor);
  }

  // One number for each channel, as wide as the core computes.
  std::optional<Tensor> wide(const std::optional<Tensor>& tensor) const {
    if (!tensor) {
      return std::nullopt;
    }
    STD_TORCH_CHECK(like.dim() > 1 && tensor->numel() == C, "wgan_kernels::bias_leaky_relu: bias does not fit x");
    const bool is_wide = dtype_of(*tensor) == (dtype == DType::float64 ? DType::float64 : DType::float32);
    return dense(is_wide ? *tensor : torch::stable::to(*tensor, wide_type(dtype)));
  }

  DType dtype;
  const Tensor& like;
  Tensor rows;
  int64_t B, C, S = 1;
};

const void* data_of(const std::optional<Tensor>& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

const Tensor* pointer(const std::optional<Tensor>& tensor) { return tensor ? &*tensor : nullptr; }

}  // namespace

// x: [B, C, ...]; bias: [C] -> [B, C, ...]
Tensor bias_leaky_relu(Tensor x, std::optional<Tensor> bias, double negative_slope, double gain,
                       std::optional<double> clamp) {
  const BiasLeakyRelu of = settings(negative_slope, gain, clamp);
  check_one_device("bias_leaky_relu", {&x, pointer(bias)});
  const Channels at(x);
  const std::optional<Tensor> add = at.wide(bias);
  Tensor y = new_like(at.rows);
  const void* from = at.rows.data_ptr();
  const void* added = data_of(add);
  void* to = y.mutable_data_ptr();
  on_device_of(
      x, [&] { wgk::bias_leaky_relu(cpu_isa(), torch_threads, at.dtype, of, at.B, at.C, at.S, from, added, to); },
      [&](auto stream) { return bias_leaky_relu_cuda(stream, at.dtype, of, at.B, at.C, at.S, from, added, to); });
  return in_layout_of(x, at.rows, y);
}

// grad_y, y: [B, C, ...] -> grad_x: [B, C, ...]; grad_bias: [C], or empty
std::tuple<Tensor, Tensor> bias_leaky_relu_backward(Tensor grad_y, Tensor y, double negative_slope, double gain,
                                                    std::optional<double> clamp, bool needs_bias) {
  const BiasLeakyRelu of = settings(negative_slope, gain, clamp);
  check_one_device("bias_leaky_relu_backward", {&y, &grad_y});
  STD_TORCH_CHECK(!needs_bias || y.dim() > 1, "wgan_kernels::bias_leaky_relu: y has no channels");
  const Channels at(y);
  const Tensor grads = at.ordered(grad_y);
  Tensor grad_x = new_like(at.rows);
  Tensor grad_bias = new_dense(y, {needs_bias ? at.C : 0}, wide_type(at.dtype));
  const void *g = grads.data_ptr(), *values = at.rows.data_ptr();
  void *to = grad_x.mutable_data_ptr(), *sums = needs_bias ? grad_bias.mutable_data_ptr() : nullptr;
  on_device_of(
      y,
      [&] {
        wgk::bias_leaky_relu_backward(cpu_isa(), torch_threads, at.dtype, of, at.B, at.C, at.S, g, values, to, sums);
      },
      [&](auto stream) {
        const int64_t bytes = needs_bias ? bias_leaky_relu_backward_cuda_workspace(at.B, at.C, at.S) : 0;
        const Tensor workspace = new_workspace(y, bytes);
        return bias_leaky_relu_backward_cuda(stream, at.dtype, of, at.B, at.C, at.S, g, values, to, sums,
                                             workspace.mutable_data_ptr());
      });
  return {in_layout_of(y, at.rows, grad_x), grad_bias};
}

// grad_grad_x, y: [B, C, ...]; grad_grad_bias: [C] -> [B, C, ...]
Tensor bias_leaky_relu_double_backward(Tensor grad_grad_x, std::optional<Tensor> grad_grad_bias, Tensor y,
                                       double negative_slope, double gain, std::optional<double> clamp) {
  const BiasLeakyRelu of = settings(negative_slope, gain, clamp);
  check_one_device("bias_leaky_relu_double_backward", {&y, &grad_grad_x, pointer(grad_grad_bias)});
  const Channels at(y);
  const Tensor along = at.ordered(grad_grad_x);
  const std::optional<Tensor> add = at.wide(grad_grad_bias);
  Tensor grad_grad_y = new_like(at.rows);
  const void *u = along.data_ptr(), *values = at.rows.data_ptr();
  void* to = grad_grad_y.mutable_data_ptr();
  on_device_of(
      y,
      [&] {
        wgk::bias_leaky_relu_double_backward(cpu_isa(), torch_threads, at.dtype, of, at.B, at.C, at.S, u, data_of(add),
                                             values, to);
      },
      [&](auto stream) {
        return bias_leaky_relu_double_backward_cuda(stream, at.dtype, of, at.B, at.C, at.S, u, data_of(add), values,
                                                    to);
      });
  return in_layout_of(y, at.rows, grad_grad_y);
}

}  // namespace wgk::operators
