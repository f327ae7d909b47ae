// The arguments of mlp_critic_loss from numpy arrays, for the test modules of the core and of the CUDA kernels.
#pragma once

#include "arrays.h"
#include "mlp_critic_loss.h"

namespace wgk {

// Weights [out, in] and biases [out] or None, one per layer, the first of D inputs; grad_weights: as many, or none;
// grad_biases: likewise, None where there is no bias.
inline std::vector<MlpLayer> mlp_layers(DType dtype, int64_t D, const std::vector<py::array>& weights,
                                        const std::vector<py::object>& biases, const std::vector<double>& slopes,
                                        std::vector<py::array>& grad_weights, std::vector<py::object>& grad_biases) {
  const size_t depth = weights.size();
  check(depth > 0 && biases.size() == depth && slopes.size() == depth, "not as many biases and slopes as weights");
  check(grad_weights.empty() || grad_weights.size() == depth, "not as many gradients as weights");
  check(grad_biases.empty() || grad_biases.size() == depth, "not as many gradients as biases");
  std::vector<MlpLayer> layers;
  for (size_t l = 0; l < depth; ++l) {
    const auto [out_features, in_features] = rows(weights[l]);
    check(in_features == (l == 0 ? D : layers[l - 1].out), "weights do not follow one another");
    const int64_t size = out_features * in_features;
    const auto vector = [&, length = out_features](const py::object& array) {
      return array.is_none() ? nullptr : in(array.cast<py::array>(), dtype, length);
    };
    const bool wants_bias = !grad_biases.empty() && !grad_biases[l].is_none();
    py::array grad_bias = wants_bias ? grad_biases[l].cast<py::array>() : py::array();
    layers.push_back({in_features, out_features, in(weights[l], dtype, size), vector(biases[l]), slopes[l],
                      grad_weights.empty() || size == 0 ? nullptr : out(grad_weights[l], dtype, size),
                      wants_bias ? out(grad_bias, dtype, out_features) : nullptr});
  }
  return layers;
}

// mixed: [B, D]; real and fake: arrays like it, or None both.
inline CriticSamples critic_samples(DType dtype, const NormPenalty& penalty, const py::array& mixed,
                                    const py::object& real, const py::object& fake) {
  check(dtype == wide(dtype) && penalty.reduction != Reduction::none, "a dtype or reduction that it lacks");
  check(real.is_none() == fake.is_none(), "real and fake come together");
  const auto samples = [&](const py::object& array) {
    return array.is_none() ? nullptr : in(array.cast<py::array>(), dtype, mixed.size());
  };
  return {in(mixed, dtype, mixed.size()), samples(real), samples(fake), !real.is_none()};
}

}  // namespace wgk
