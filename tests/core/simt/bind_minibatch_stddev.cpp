#include "../minibatch_arrays.h"
#include "binding.h"

namespace wgk {
namespace {

const Binding bind_minibatch_stddev([](py::module_& m) {
  m.def("minibatch_stddev", [](const Run& run, const std::string& dtype_name, const py::array& x, py::array value) {
    const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
    const Workspace workspace(minibatch_stddev_cuda_workspace(groups));
    void* to = out(value, groups.dtype, groups.rows());
    launch(run, [&] { return minibatch_stddev_cuda(nullptr, groups, to, workspace.get()); });
  });

  m.def("minibatch_stddev_backward", [](const Run& run, const std::string& dtype_name, const py::array& grad_value,
                                        const py::array& x, py::array grad_x) {
    const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
    const void* by_value = in(grad_value, groups.dtype, groups.rows());
    void* to = out(grad_x, groups.dtype, x.size());
    launch(run, [&] { return minibatch_stddev_backward_cuda(nullptr, groups, by_value, to); });
  });

  m.def("minibatch_stddev_double_backward",
        [](const Run& run, const std::string& dtype_name, const py::array& grad_grad_x, const py::array& grad_value,
           const py::array& x, py::array grad_grad_value, py::array grad_x) {
          const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
          const Workspace workspace(minibatch_stddev_cuda_workspace(groups));
          const void* along = in(grad_grad_x, groups.dtype, x.size());
          const void* by_value = in(grad_value, groups.dtype, groups.rows());
          void* by_value_out = out(grad_grad_value, groups.dtype, groups.rows());
          void* to = out(grad_x, groups.dtype, x.size());
          launch(run, [&] {
            return minibatch_stddev_double_backward_cuda(nullptr, groups, along, by_value, by_value_out, to,
                                                         workspace.get());
          });
        });
});

}  // namespace
}  // namespace wgk
