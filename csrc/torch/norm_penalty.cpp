#include "../core/norm_penalty.h"

#include "operators.h"

namespace wgk {
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
}

// value and norms, not initialised.
std::tuple<Tensor, Tensor> results(const Tensor& grad, const NormPenalty& penalty) {
  STD_TORCH_CHECK(grad.dim() > 0, "wgan_kernels::norm_penalty: grad has no batch dimension");
  const std::vector<int64_t> values(penalty.reduction == Reduction::none ? 1 : 0, batch(grad));
  return {new_dense(grad, values, wide_type(dtype_of(grad))), new_dense(grad, {batch(grad)}, ScalarType::Double)};
}

}  // namespace

std::tuple<Tensor, Tensor> norm_penalty_cpu(Tensor grad, double target, bool one_sided, int64_t reduction,
                                            double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  const DType dtype = dtype_of(grad);
  auto [value, norms] = results(grad, penalty);
  const auto [rows] = matching_rows<1>({grad});
  norm_penalty(cpu_isa(), torch_threads, dtype, penalty, batch(grad), features(grad), rows.data_ptr(),
               value.data_ptr(), static_cast<double*>(norms.data_ptr()));
  return {value, norms};
}

std::tuple<Tensor, Tensor, Tensor> norm_penalty_with_grad_cpu(Tensor grad, double target, bool one_sided,
                                                              int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  const DType dtype = dtype_of(grad);
  auto [value, norms] = results(grad, penalty);
  const auto [rows] = matching_rows<1>({grad});
  Tensor grad_x = torch::stable::empty_like(rows);
  norm_penalty_with_grad(cpu_isa(), torch_threads, dtype, penalty, batch(grad), features(grad), rows.data_ptr(),
                         value.data_ptr(), static_cast<double*>(norms.data_ptr()), grad_x.data_ptr());
  return {value, norms, in_layout_of(grad, rows, grad_x)};
}

Tensor norm_penalty_backward_cpu(Tensor grad_value, Tensor grad, Tensor norms, double target, bool one_sided,
                                 int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  check_fit(grad_value, grad, norms, penalty);
  const auto [rows] = matching_rows<1>({grad});
  const Tensor dense_grad_value = dense(grad_value);
  const Tensor dense_norms = dense(norms);
  Tensor grad_x = torch::stable::empty_like(rows);
  norm_penalty_backward(cpu_isa(), torch_threads, dtype_of(grad), penalty, batch(grad), features(grad),
                        dense_grad_value.data_ptr(), rows.data_ptr(),
                        static_cast<const double*>(dense_norms.data_ptr()), grad_x.data_ptr());
  return in_layout_of(grad, rows, grad_x);
}

std::tuple<Tensor, Tensor> norm_penalty_double_backward_cpu(Tensor grad_grad_x, Tensor grad_value, Tensor grad,
                                                            Tensor norms, double target, bool one_sided,
                                                            int64_t reduction, double weight) {
  const NormPenalty penalty = settings(target, one_sided, reduction, weight);
  check_fit(grad_value, grad, norms, penalty);
  STD_TORCH_CHECK(grad_grad_x.scalar_type() == grad.scalar_type() && grad_grad_x.numel() == grad.numel(),
                  "wgan_kernels::norm_penalty_double_backward: grad_grad_x does not fit grad");
  const auto [rows, grad_rows] = matching_rows<2>({grad, grad_grad_x});
  const Tensor dense_grad_value = dense(grad_value);
  const Tensor dense_norms = dense(norms);
  Tensor grad_grad_value = torch::stable::empty_like(dense_grad_value);
  Tensor grad_x = torch::stable::empty_like(rows);
  norm_penalty_double_backward(cpu_isa(), torch_threads, dtype_of(grad), penalty, batch(grad), features(grad),
                               grad_rows.data_ptr(), dense_grad_value.data_ptr(), rows.data_ptr(),
                               static_cast<const double*>(dense_norms.data_ptr()), grad_grad_value.data_ptr(),
                               grad_x.data_ptr());
  return {in_layout_of(grad_value, dense_grad_value, grad_grad_value), in_layout_of(grad, rows, grad_x)};
}

}  // namespace wgk
