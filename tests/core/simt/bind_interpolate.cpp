#include "binding.h"
#include "interpolate.h"

namespace wgk {
namespace {

const Binding bind_interpolate([](py::module_& m) {
  m.def("interpolate", [](const Run& run, const std::string& dtype_name, const py::array& real, const py::array& fake,
                          const py::array& mix, py::array result) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(real);
    const void* reals = in(real, dtype, B * D);
    const void* fakes = in(fake, dtype, B * D);
    const void* mixes = in(mix, wide(dtype), B);
    void* results = out(result, dtype, B * D);
    launch(run, [&, B = B, D = D] { return interpolate_cuda(nullptr, dtype, B, D, reals, fakes, mixes, results); });
  });
});

}  // namespace
}  // namespace wgk
