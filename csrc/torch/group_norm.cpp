#include "../core/group_norm.h"

#include "operators.h"

namespace wgk::operators {
namespace {

// The groups of x, and x itself or a copy of it as the core walks it.
class Grouped {
 public:
  Grouped(const Tensor& x, int64_t groups, int64_t layer_dims)
      : norm{1, 1, 1, groups, false}, dtype(dtype_of(x)), x_(x) {
    STD_TORCH_CHECK(layer_dims >= 0 && layer_dims <= x.dim() && (layer_dims > 0 || x.dim() >= 2),
                    "wgan_kernels::group_norm: x has too few dimensions");
    const int64_t first = x.dim() - layer_dims;
    for (int64_t d = 0; d < x.dim(); ++d) {
      const bool is_channel = layer_dims > 0 ? d >= first : d == 1;
      (is_channel ? norm.C : layer_dims > 0 || d == 0 ? norm.B : norm.S) *= x.size(d);
    }
    STD_TORCH_CHECK(groups > 0 && norm.C % groups == 0, "wgan_kernels::group_norm: groups do not divide the channels");
    norm.channels_last = layer_dims == 0 && !x.is_contiguous() && is_channels_last(x);
    rows = norm.channels_last ? x : dense(x);
  }

  // A tensor of the shape of x in the order of `rows`.
  Tensor like_rows(const Tensor& tensor) const {
    STD_TORCH_CHECK(tensor.scalar_type() == x_.scalar_type() && tensor.numel() == x_.numel(),
                    "wgan_kernels::group_norm: a gradient does not fit x");
    if ((tensor.is_contiguous() && rows.is_contiguous()) || same_steps(tensor, rows)) {
      return tensor;
    }
    Tensor copy = torch::stable::empty_like(rows);
    return torch::stable::copy_(copy, tensor);
  }
  Tensor new_rows() const { return torch::stable::empty_like(rows); }
  Tensor in_layout(const Tensor& result) const { return in_layout_of(x_, rows, result); }

  // A parameter, or the gradient of one, of C numbers as wide as the core wants them; undefined for none.
  std::optional<Tensor> param(const std::optional<Tensor>& tensor) const {
    if (!tensor) {
      return std::nullopt;
    }
    STD_TORCH_CHECK(tensor->numel() == norm.C, "wgan_kernels::group_norm: weight or bias does not fit x");
    return tensor->scalar_type() == wide_type(dtype) ? dense(*tensor)
                                                     : dense(torch::stable::to(*tensor, wide_type(dtype)));
  }
  Tensor statistics() const { return new_dense(x_, {norm.B, norm.G}, wide_type(dtype)); }
  Tensor statistics(const Tensor& tensor) const {
    STD_TORCH_CHECK(tensor.scalar_type() == wide_type(dtype) && tensor.numel() == norm.B * norm.G,
                    "wgan_kernels::group_norm: mean or rstd does not fit x");
    return dense(tensor);
  }
  // What the core fills for the gradient of a parameter; with no elements where it is not wanted.
  Tensor param_grad(const std::optional<Tensor>& param, bool wanted) const {
    return param && wanted ? new_dense(x_, sizes_of(*param), wide_type(dtype)) : new_dense(x_, {0}, wide_type(dtype));
  }
  Tensor finished(const Tensor& grad, const std::optional<Tensor>& param) const {
    return !param || grad.scalar_type() == param->scalar_type() ? grad : torch::stable::to(grad, param->scalar_type());
  }

  GroupNorm norm;
  DType dtype;
  Tensor rows;

 private:
  static std::vector<int64_t> sizes_of(const Tensor& tensor) {
    std::vector<int64_t> sizes;
    for (int64_t d = 0; d < tensor.dim(); ++d) {
      sizes.push_back(tensor.size(d));
    }
    return sizes;
  }
  const Tensor& x_;
};

const void* data_of(const std::optional<Tensor>& tensor) { return tensor ? tensor->data_ptr() : nullptr; }

// Null for a gradient that is not wanted.
void* wanted_data(const std::optional<Tensor>& param, bool wanted, Tensor& grad) {
  return param && wanted ? grad.mutable_data_ptr() : nullptr;
}

const Tensor* pointer(const std::optional<Tensor>& tensor) { return tensor ? &*tensor : nullptr; }

}  // namespace

std::tuple<Tensor, Tensor, Tensor> group_norm(Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias,
                                              int64_t groups, int64_t layer_dims, double eps) {
  check_one_device("group_norm", {&x, pointer(weight), pointer(bias)});
  const Grouped grouped(x, groups, layer_dims);
  const GroupNorm& norm = grouped.norm;
  const std::optional<Tensor> w = grouped.param(weight), b = grouped.param(bias);
  Tensor y = grouped.new_rows(), mean = grouped.statistics(), rstd = grouped.statistics();
  const GroupNormForward at{grouped.rows.data_ptr(), data_of(w),  data_of(b), y.mutable_data_ptr(),
                            mean.mutable_data_ptr(), rstd.mutable_data_ptr()};
  on_device_of(
      x, [&] { wgk::group_norm(cpu_isa(), torch_threads, grouped.dtype, norm, eps, at); },
      [&](auto stream) {
        const Tensor workspace = new_workspace(x, group_norm_cuda_workspace(norm));
        return group_norm_cuda(stream, grouped.dtype, norm, eps, at, workspace.mutable_data_ptr());
      });
  return {grouped.in_layout(y), mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> group_norm_backward(Tensor grad_y, Tensor x, std::optional<Tensor> weight,
                                                       std::optional<Tensor> bias, Tensor mean, Tensor rstd,
                                                       int64_t groups, int64_t layer_dims, bool needs_params) {
  check_one_device("group_norm_backward", {&x, &grad_y, &mean, &rstd, pointer(weight), pointer(bias)});
  const Grouped grouped(x, groups, layer_dims);
  const GroupNorm& norm = grouped.norm;
  const std::optional<Tensor> w = grouped.param(weight);
  const Tensor g = grouped.like_rows(grad_y), means = grouped.statistics(mean), rstds = grouped.statistics(rstd);
  Tensor grad_x = grouped.new_rows(), grad_weight = grouped.param_grad(weight, needs_params);
  Tensor grad_bias = grouped.param_grad(bias, needs_params);
  const GroupNormBackward at{g.data_ptr(), grouped.rows.data_ptr(), data_of(w), means.data_ptr(), rstds.data_ptr(),
                             grad_x.mutable_data_ptr(), wanted_data(weight, needs_params, grad_weight),
                             wanted_data(bias, needs_params, grad_bias)};
  on_device_of(
      x, [&] { wgk::group_norm_backward(cpu_isa(), torch_threads, grouped.dtype, norm, at); },
      [&](auto stream) {
        const Tensor workspace = new_workspace(x, group_norm_cuda_workspace(norm));
        return group_norm_backward_cuda(stream, grouped.dtype, norm, at, workspace.mutable_data_ptr());
      });
  return {grouped.in_layout(grad_x), grouped.finished(grad_weight, weight), grouped.finished(grad_bias, bias)};
}

std::tuple<Tensor, Tensor, Tensor> group_norm_double_backward(
    std::optional<Tensor> grad_grad_x, std::optional<Tensor> grad_grad_weight, std::optional<Tensor> grad_grad_bias,
    Tensor grad_y, Tensor x, std::optional<Tensor> weight, Tensor mean, Tensor rstd, int64_t groups,
    int64_t layer_dims, bool needs_y, bool needs_params) {
  check_one_device("group_norm_double_backward", {&x, &grad_y, &mean, &rstd, pointer(weight), pointer(grad_grad_x),
                                                  pointer(grad_grad_weight), pointer(grad_grad_bias)});
  const Grouped grouped(x, groups, layer_dims);
  const GroupNorm& norm = grouped.norm;
  const std::optional<Tensor> w = grouped.param(weight);
  const std::optional<Tensor> p = grouped.param(grad_grad_weight), q = grouped.param(grad_grad_bias);
  Tensor u = grad_grad_x ? grouped.like_rows(*grad_grad_x) : grouped.new_rows();
  if (!grad_grad_x) {
    torch::stable::zero_(u);
  }
  const Tensor g = grouped.like_rows(grad_y), means = grouped.statistics(mean), rstds = grouped.statistics(rstd);
  Tensor grad_grad_y = needs_y ? grouped.new_rows() : new_dense(x, {0}, x.scalar_type()), grad_x = grouped.new_rows();
  Tensor grad_weight = grouped.param_grad(weight, needs_params);
  const GroupNormDoubleBackward at{u.data_ptr(), data_of(p), data_of(q), g.data_ptr(), grouped.rows.data_ptr(),
                                   data_of(w), means.data_ptr(), rstds.data_ptr(),
                                   needs_y ? grad_grad_y.mutable_data_ptr() : nullptr,
                                   grad_x.mutable_data_ptr(), wanted_data(weight, needs_params, grad_weight)};
  on_device_of(
      x, [&] { wgk::group_norm_double_backward(cpu_isa(), torch_threads, grouped.dtype, norm, at); },
      [&](auto stream) {
        const Tensor workspace = new_workspace(x, group_norm_cuda_workspace(norm));
        return group_norm_double_backward_cuda(stream, grouped.dtype, norm, at, workspace.mutable_data_ptr());
      });
  return {needs_y ? grouped.in_layout(grad_grad_y) : grad_grad_y, grouped.in_layout(grad_x),
          grouped.finished(grad_weight, weight)};
}

}  // namespace wgk::operators
