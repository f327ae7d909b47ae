#include "../rmsprop_arrays.h"
#include "binding.h"

namespace wgk {
namespace {

const Binding bind_rmsprop_clip([](py::module_& m) {
  m.def("rmsprop_clip", [](const Run& run, RmspropArrays arrays, const std::vector<double>& numbers,
                           const std::vector<py::object>& on_device, py::object stats) {
    const std::vector<RmspropTensor> tensors = rmsprop_tensors(arrays);
    const RmspropStep step = rmsprop_step(numbers, on_device);
    int64_t* counts = rmsprop_stats(stats);
    launch(run, [&] {
      return rmsprop_clip_cuda(nullptr, tensors.data(), static_cast<int64_t>(tensors.size()), step, counts);
    });
  });
});

}  // namespace
}  // namespace wgk
