#include "binding.h"
#include "../minibatch_arrays.h"

namespace wgk {
namespace {

using Rows = std::pair<int64_t, int64_t>;

const Binding bind_minibatch_discrimination([](py::module_& m) {
  m.def("minibatch_discrimination", [](const Run& run, const std::string& dtype_name, const py::array& z,
                                       const Rows& rows, py::array o) {
    const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
    void* to = out(o, batch.dtype, batch.rows() * batch.F);
    launch(run, [&] { return minibatch_discrimination_cuda(nullptr, batch, to); });
  });

  m.def("minibatch_discrimination_backward", [](const Run& run, const std::string& dtype_name, const py::array& grad_o,
                                                const py::array& z, const Rows& rows, py::array grad_m) {
    const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
    const void* by_o = in(grad_o, batch.dtype, batch.rows() * batch.F);
    void* to = out(grad_m, batch.dtype, z.size());
    launch(run, [&] { return minibatch_discrimination_backward_cuda(nullptr, batch, by_o, to); });
  });

  m.def("minibatch_discrimination_double_backward",
        [](const Run& run, const std::string& dtype_name, const py::array& grad_grad_m, const py::array& grad_o,
           const py::array& z, const Rows& rows, py::array grad_grad_o, py::array grad_m) {
          const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
          const int64_t count = batch.rows() * batch.F;
          const void *along = in(grad_grad_m, batch.dtype, z.size()), *by_o = in(grad_o, batch.dtype, count);
          void *by_o_out = out(grad_grad_o, batch.dtype, count), *to = out(grad_m, batch.dtype, z.size());
          launch(run, [&] {
            return minibatch_discrimination_double_backward_cuda(nullptr, batch, along, by_o, by_o_out, to);
          });
        });
});

}  // namespace
}  // namespace wgk
