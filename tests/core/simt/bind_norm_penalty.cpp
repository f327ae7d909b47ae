#include "binding.h"
#include "norm_penalty.h"

namespace wgk {
namespace {

const Binding bind_norm_penalty([](py::module_& m) {
  bind_settings(m);

  m.def("norm_penalty", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                           const py::array& grad, py::array value, py::array norms) {
    const DType dtype = dtype_named(dtype_name);
    const int64_t B = rows(grad).first, D = rows(grad).second;
    const Workspace workspace(norm_penalty_cuda_workspace(B, D));
    const void* grads = in(grad, dtype, B * D);
    void* values = out(value, wide(dtype), values_of(penalty, B));
    auto* norm = static_cast<double*>(out(norms, DType::float64, B));
    launch(run,
           [&] { return norm_penalty_cuda(nullptr, dtype, penalty, B, D, grads, values, norm, workspace.get()); });
  });

  m.def("norm_penalty_backward", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                                    const py::array& grad_value, const py::array& grad, const py::array& norms,
                                    py::array grad_x) {
    const DType dtype = dtype_named(dtype_name);
    const int64_t B = rows(grad).first, D = rows(grad).second;
    const void* grad_values = in(grad_value, wide(dtype), values_of(penalty, B));
    const void* grads = in(grad, dtype, B * D);
    const auto* norm = static_cast<const double*>(in(norms, DType::float64, B));
    void* grad_xs = out(grad_x, dtype, B * D);
    launch(run, [&] {
      return norm_penalty_backward_cuda(nullptr, dtype, penalty, B, D, grad_values, grads, norm, grad_xs);
    });
  });

  m.def("norm_penalty_double_backward", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                                           const py::array& grad_grad_x, const py::array& grad_value,
                                           const py::array& grad, const py::array& norms, py::array grad_grad_value,
                                           py::array grad_x) {
    const DType dtype = dtype_named(dtype_name);
    const int64_t B = rows(grad).first, D = rows(grad).second, values = values_of(penalty, B);
    const Workspace workspace(norm_penalty_cuda_workspace(B, D));
    const void* us = in(grad_grad_x, dtype, B * D);
    const void* grad_values = in(grad_value, wide(dtype), values);
    const void* grads = in(grad, dtype, B * D);
    const auto* norm = static_cast<const double*>(in(norms, DType::float64, B));
    void* grad_grad_values = out(grad_grad_value, wide(dtype), values);
    void* grad_xs = out(grad_x, dtype, B * D);
    launch(run, [&] {
      return norm_penalty_double_backward_cuda(nullptr, dtype, penalty, B, D, us, grad_values, grads, norm,
                                               grad_grad_values, grad_xs, workspace.get());
    });
  });
});

}  // namespace
}  // namespace wgk
