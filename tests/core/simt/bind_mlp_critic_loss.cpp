#include "../mlp_layers.h"
#include "binding.h"

namespace wgk {
namespace {

const Binding bind_mlp_critic_loss([](py::module_& m) {
  m.def("mlp_critic_loss", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                              const py::array& mixed, const py::object& real, const py::object& fake,
                              const std::vector<py::array>& weights, const std::vector<py::object>& biases,
                              const std::vector<double>& slopes, py::array value, py::array wasserstein,
                              py::array norms, std::vector<py::array> grad_weights,
                              std::vector<py::object> grad_biases) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(mixed);
    const std::vector<MlpLayer> layers = mlp_layers(dtype, D, weights, biases, slopes, grad_weights, grad_biases);
    const auto depth = static_cast<int64_t>(layers.size());
    const CriticSamples samples = critic_samples(dtype, penalty, mixed, real, fake);
    const Workspace workspace(mlp_critic_loss_cuda_workspace(dtype, B, layers.data(), depth, samples.judged));
    const CriticLoss loss{out(value, dtype, 1), out(wasserstein, dtype, 1),
                          static_cast<double*>(out(norms, DType::float64, B))};
    launch(run, [&, B = B] {
      return mlp_critic_loss_cuda(nullptr, dtype, penalty, B, layers.data(), depth, samples, loss, workspace.get());
    });
  });
});

}  // namespace
}  // namespace wgk
