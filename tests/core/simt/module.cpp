// simt_module: the CUDA kernels of csrc/core on numpy arrays, run by the CPU. See binding.h.
#include "binding.h"
#include "engine.h"

namespace wgk {

void launch(const Run& run, const std::function<CudaStatus()>& call) {
  simt::reverse_order = run.reverse;
  const CudaStatus status = call();
  if (status != 0) {
    throw std::runtime_error("a launch failed with status " + std::to_string(status));
  }
}

}  // namespace wgk

PYBIND11_MODULE(simt_module, m) {
  using namespace wgk;
  py::class_<Run>(m, "Run", py::module_local())
      .def(py::init<bool>(), py::arg("reverse") = false)
      .def_readonly("reverse", &Run::reverse);
  m.def("launches", [] { return simt::launches; });
  for (const Bind bind : bindings()) {
    bind(m);
  }
}
