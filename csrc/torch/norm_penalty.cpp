#include "../core/norm_penalty.h"

#include "operators.h"

namespace wgk::operators {
namespace {

NormPenalty settings(double target, bool one_sided, int64_t reduction, double weight) {
  STD_TORCH_CHECK(reduction >= 0 && reduction <= 2, "wgan_kernels::norm_penalty: reduction must be 0, 1 or 2");
  return {target, one_sided, static_cast<Reduction>(reduction), weight};
}

void check_fit(const Tensor& grad_value, const Tensor& grad, const Tensor& norms, const NormPenalty& penalty) {
  const int64_t values = penalty.reduction == Reduction::none ? batch(grad) : 1;
  STD_TORCH_CHECK(norms.scalar_type() == ScalarType::Double && norms.numel() == batch(grad) &&
                      grad_value.scalar_type() == wide_type(dtype_of(grad)) && grad_value.numel() == values,
                  "wgan_kernels::norm_penalty: grad_value, grad and norms do not fit together");
  check_one_device("norm_penalty", {&grad, &grad_value, &norms});
}

// value and norms, not initialised.
std::tuple<Tensor, Tensor> results(const Tensor& grad, const NormPenalty& penalty) {
  STD_TORCH_CHECK(grad.dim() > 0, "wgan_kernels::norm_penalty: grad has no batch dimension");
  const std::vector<int64_t> values(penalty.reduction == Reduction::none ? 1 : 0, batch(grad));
  return {new_dense(grad, values, wide_type(dtype_of(grad))), new_dense(grad, {batch(grad)}, ScalarType::Double)};
}

}  // namespace

std::tuple<Tensor, Tensor> norm_penalty(Tensor grad, double target, bool one_sided, int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  const DType dtype = dtype_of(grad);
  auto [value, norms] = results(grad, penalty);
  const auto [rows] = matching_rows<1>({grad});
  const int64_t B = batch(grad), D = features(grad);
  const void* x = rows.data_ptr();
  double* norms_data = static_cast<double*>(norms.mutable_data_ptr());
  on_device_of(
      grad,
      [&] { wgk::norm_penalty(cpu_isa(), torch_threads, dtype, penalty, B, D, x, value.mutable_data_ptr(), norms_data); },
      [&](auto stream) {
        const Tensor workspace = new_workspace(grad, norm_penalty_cuda_workspace(B, D));
        return norm_penalty_cuda(stream, dtype, penalty, B, D, x, value.mutable_data_ptr(), norms_data,
                                 workspace.mutable_data_ptr());
      });
  return {value, norms};
}

std::tuple<Tensor, Tensor, Tensor> norm_penalty_with_grad(Tensor grad, double target, bool one_sided, int64_t reduction,
                                                          double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  const DType dtype = dtype_of(grad);
  auto [value, norms] = results(grad, penalty);
  const auto [rows] = matching_rows<1>({grad});
  Tensor grad_x = torch::stable::empty_like(rows);
  wgk::norm_penalty_with_grad(cpu_isa(), torch_threads, dtype, penalty, batch(grad), features(grad), rows.data_ptr(),
                              value.mutable_data_ptr(), static_cast<double*>(norms.mutable_data_ptr()),
                              grad_x.mutable_data_ptr());
  return {value, norms, in_layout_of(grad, rows, grad_x)};
}

Tensor norm_penalty_backward(Tensor grad_value, Tensor grad, Tensor norms, double target, bool one_sided,
                             int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  check_fit(grad_value, grad, norms, penalty);
  const auto [rows] = matching_rows<1>({grad});
  const Tensor dense_grad_value = dense(grad_value), dense_norms = dense(norms);
  Tensor grad_x = torch::stable::empty_like(rows);
  const DType dtype = dtype_of(grad);
  const int64_t B = batch(grad), D = features(grad);
  const void *by_value = dense_grad_value.data_ptr(), *x = rows.data_ptr();
  const double* norms_data = static_cast<const double*>(dense_norms.data_ptr());
  void* out = grad_x.mutable_data_ptr();
  on_device_of(
      grad,
      [&] { wgk::norm_penalty_backward(cpu_isa(), torch_threads, dtype, penalty, B, D, by_value, x, norms_data, out); },
      [&](auto stream) {
        return norm_penalty_backward_cuda(stream, dtype, penalty, B, D, by_value, x, norms_data, out);
      });
  return in_layout_of(grad, rows, grad_x);
}

std::tuple<Tensor, Tensor> norm_penalty_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor grad,
                                                        Tensor norms, double target, bool one_sided,
                                                        int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  check_fit(grad_value, grad, norms, penalty);
  check_one_device("norm_penalty_double_backward", {&grad, &grad_grad_x});
  STD_TORCH_CHECK(grad_grad_x.scalar_type() == grad.scalar_type() && grad_grad_x.numel() == grad.numel(),
                  "wgan_kernels::norm_penalty_double_backward: grad_grad_x does not fit grad");
  const auto [rows, grad_rows] = matching_rows<2>({grad, grad_grad_x});
  const Tensor dense_grad_value = dense(grad_value), dense_norms = dense(norms);
  Tensor grad_grad_value = torch::stable::empty_like(dense_grad_value);
  Tensor grad_x = torch::stable::empty_like(rows);
  const DType dtype = dtype_of(grad);
  const int64_t B = batch(grad), D = features(grad);
  const void *along = grad_rows.data_ptr(), *by_value = dense_grad_value.data_ptr(), *x = rows.data_ptr();
  const double* norms_data = static_cast<const double*>(dense_norms.data_ptr());
  void *value_out = grad_grad_value.mutable_data_ptr(), *x_out = grad_x.mutable_data_ptr();
  on_device_of(
      grad,
      [&] {
        wgk::norm_penalty_double_backward(cpu_isa(), torch_threads, dtype, penalty, B, D, along, by_value, x,
                                          norms_data, value_out, x_out);
      },
      [&](auto stream) {
        const Tensor workspace = new_workspace(grad, norm_penalty_cuda_workspace(B, D));
        return norm_penalty_double_backward_cuda(stream, dtype, penalty, B, D, along, by_value, x, norms_data,
                                                 value_out, x_out, workspace.mutable_data_ptr());
      });
  return {in_layout_of(grad_value, dense_grad_value, grad_grad_value), in_layout_of(grad, rows, grad_x)};
}

}  // namespace wgk::operators
