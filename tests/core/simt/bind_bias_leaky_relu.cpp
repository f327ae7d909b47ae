#include "../rectifier_arrays.h"
#include "binding.h"

namespace wgk {
namespace {

const Binding bind_bias_leaky_relu([](py::module_& m) {
  m.def("bias_leaky_relu", [](const Run& run, const std::string& dtype_name, const std::vector<double>& settings,
                              const py::array& x, const py::object& bias, py::array y) {
    const Rectified r = rectified(dtype_name, settings, x);
    const void *from = in(x, r.dtype, x.size()), *add = channels_in(bias, r.dtype, r.C);
    void* to = out(y, r.dtype, x.size());
    launch(run, [&] { return bias_leaky_relu_cuda(nullptr, r.dtype, r.of, r.B, r.C, r.S, from, add, to); });
  });

  m.def("bias_leaky_relu_backward", [](const Run& run, const std::string& dtype_name,
                                       const std::vector<double>& settings, const py::array& grad_y, const py::array& y,
                                       py::array grad_x, py::object grad_bias) {
    const Rectified r = rectified(dtype_name, settings, y);
    const Workspace workspace(bias_leaky_relu_backward_cuda_workspace(r.B, r.C, r.S));
    const void *g = in(grad_y, r.dtype, y.size()), *values = in(y, r.dtype, y.size());
    void *to = out(grad_x, r.dtype, y.size()), *sums = channels_out(grad_bias, r.dtype, r.C);
    launch(run, [&] {
      return bias_leaky_relu_backward_cuda(nullptr, r.dtype, r.of, r.B, r.C, r.S, g, values, to, sums,
                                           workspace.get());
    });
  });

  m.def("bias_leaky_relu_double_backward", [](const Run& run, const std::string& dtype_name,
                                              const std::vector<double>& settings, const py::array& grad_grad_x,
                                              const py::object& grad_grad_bias, const py::array& y,
                                              py::array grad_grad_y) {
    const Rectified r = rectified(dtype_name, settings, y);
    const void *u = in(grad_grad_x, r.dtype, y.size()), *add = channels_in(grad_grad_bias, r.dtype, r.C);
    const void* values = in(y, r.dtype, y.size());
    void* to = out(grad_grad_y, r.dtype, y.size());
    launch(run, [&] {
      return bias_leaky_relu_double_backward_cuda(nullptr, r.dtype, r.of, r.B, r.C, r.S, u, add, values, to);
    });
  });
});

}  // namespace
}  // namespace wgk
