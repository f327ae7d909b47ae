#include "binding.h"
#include "weight_clip.h"

namespace wgk {
namespace {

const Binding bind_weight_clip([](py::module_& m) {
  m.def("clip_weights", [](const Run& run, NamedArrays arrays, double low, double high) {
    const ClipTensors tensors(arrays);
    launch(run, [&] { return clip_weights_cuda(nullptr, tensors.data(), tensors.count(), low, high); });
  });
});

}  // namespace
}  // namespace wgk
