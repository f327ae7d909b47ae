#include "../core/minibatch_stddev.h"

#include "operators.h"

namespace wgk::operators {
namespace {

// x and other tensors of its shape, walked together. With one block of numbers any order of a sample's numbers will do.
template <size_t count>
std::array<Tensor, count> in_blocks(const std::array<Tensor, count>& tensors, int64_t num_channels) {
  if (num_channels == 1) {
    return matching_rows<count>(tensors);
  }
  std::array<Tensor, count> copies = tensors;
  for (Tensor& copy : copies) {
    copy = dense(copy);
  }
  return copies;
}

// x has to outlive what is returned.
SampleGroups sample_groups(const Tensor& x, int64_t group_size, int64_t num_channels) {
  STD_TORCH_CHECK(x.dim() >= 2 && group_size > 0 && num_channels > 0 && x.size(0) % group_size == 0 &&
                      x.size(1) % num_channels == 0,
                  "wgan_kernels::minibatch_stddev: x does not split into such groups and blocks of channels");
  return {dtype_of(x), group_size, x.size(0) / group_size, num_channels, features(x) / num_channels, x.data_ptr()};
}

Tensor empty_value(const Tensor& x, const SampleGroups& groups) {
  return new_dense(x, {groups.M, groups.F}, x.scalar_type());
}

void check_fit(const Tensor& grad_value, const Tensor& x, const SampleGroups& groups) {
  STD_TORCH_CHECK(grad_value.scalar_type() == x.scalar_type() && grad_value.dim() == 2 &&
                      grad_value.size(0) == groups.M && grad_value.size(1) == groups.F,
                  "wgan_kernels::minibatch_stddev: grad_value does not fit x");
  check_one_device("minibatch_stddev", {&x, &grad_value});
}

}  // namespace

Tensor minibatch_stddev(Tensor x, int64_t group_size, int64_t num_channels) {
  const auto [rows] = in_blocks<1>({x}, num_channels);
  const SampleGroups groups = sample_groups(rows, group_size, num_channels);
  Tensor value = empty_value(x, groups);
  void* out = value.mutable_data_ptr();
  on_device_of(
      x, [&] { wgk::minibatch_stddev(cpu_isa(), torch_threads, groups, out); },
      [&](auto stream) {
        const Tensor workspace = new_workspace(x, minibatch_stddev_cuda_workspace(groups));
        return minibatch_stddev_cuda(stream, groups, out, workspace.mutable_data_ptr());
      });
  return value;
}

Tensor minibatch_stddev_backward(Tensor grad_value, Tensor x, int64_t group_size, int64_t num_channels) {
  const auto [rows] = in_blocks<1>({x}, num_channels);
  const SampleGroups groups = sample_groups(rows, group_size, num_channels);
  check_fit(grad_value, x, groups);
  const Tensor dense_grad = dense(grad_value);
  Tensor grad_x = torch::stable::empty_like(rows);
  const void* by_value = dense_grad.data_ptr();
  void* out = grad_x.mutable_data_ptr();
  on_device_of(
      x, [&] { wgk::minibatch_stddev_backward(cpu_isa(), torch_threads, groups, by_value, out); },
      [&](auto stream) { return minibatch_stddev_backward_cuda(stream, groups, by_value, out); });
  return in_layout_of(x, rows, grad_x);
}

std::tuple<Tensor, Tensor> minibatch_stddev_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor x,
                                                            int64_t group_size, int64_t num_channels) {
  STD_TORCH_CHECK(grad_grad_x.scalar_type() == x.scalar_type() && grad_grad_x.numel() == x.numel() &&
                      grad_grad_x.dim() == x.dim(),
                  "wgan_kernels::minibatch_stddev_double_backward: grad_grad_x does not fit x");
  check_one_device("minibatch_stddev_double_backward", {&x, &grad_grad_x});
  const auto [rows, along_rows] = in_blocks<2>({x, grad_grad_x}, num_channels);
  const SampleGroups groups = sample_groups(rows, group_size, num_channels);
  check_fit(grad_value, x, groups);
  const Tensor dense_grad = dense(grad_value);
  Tensor grad_grad_value = empty_value(x, groups), grad_x = torch::stable::empty_like(rows);
  const void *by_value = dense_grad.data_ptr(), *along = along_rows.data_ptr();
  void *value_out = grad_grad_value.mutable_data_ptr(), *out = grad_x.mutable_data_ptr();
  on_device_of(
      x,
      [&] {
        wgk::minibatch_stddev_double_backward(cpu_isa(), torch_threads, groups, along, by_value, value_out, out);
      },
      [&](auto stream) {
        const Tensor workspace = new_workspace(x, minibatch_stddev_cuda_workspace(groups));
        return minibatch_stddev_double_backward_cuda(stream, groups, along, by_value, value_out, out,
                                                     workspace.mutable_data_ptr());
      });
  return {grad_grad_value, in_layout_of(x, rows, grad_x)};
}

}  // namespace wgk::operators
