#include "../core/mlp_critic_loss.h"

#include <optional>

#include "operators.h"

namespace wgk::operators {
namespace {

void check_layer(const Tensor& mixed, const Tensor& weight, const Tensor& bias, int64_t in, size_t l) {
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(1) == in && weight.scalar_type() == mixed.scalar_type(),
                  "wgan_kernels::mlp_critic_loss: weights[", l, "] must be [out, ", in, "] of the dtype of mixed");
  STD_TORCH_CHECK(bias.numel() == 0 || (bias.dim() == 1 && bias.size(0) == weight.size(0) &&
                                        bias.scalar_type() == mixed.scalar_type()),
                  "wgan_kernels::mlp_critic_loss: biases[", l, "] must be [out] of the dtype of mixed, or empty");
  check_one_device("mlp_critic_loss", {&mixed, &weight, &bias});
}

void check_like(const Tensor& mixed, const Tensor& samples, const char* name) {
  STD_TORCH_CHECK(samples.dim() == 2 && samples.size(0) == mixed.size(0) && samples.size(1) == mixed.size(1) &&
                      samples.scalar_type() == mixed.scalar_type(),
                  "wgan_kernels::mlp_critic_loss: ", name, " must be of the shape and dtype of mixed");
  check_one_device("mlp_critic_loss", {&mixed, &samples});
}

}  // namespace

// mixed, real, fake: [B, D], or neither real nor fake; weights: [out, in] each; biases: [out] each, or empty for none
// -> penalty, wasserstein: []; norms: [B] double; grad_weights: [out, in] each, none of them without needs_grads;
// grad_biases: [out] each, or empty for none, none of them without needs_grads, real and fake
std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> mlp_critic_loss(
    Tensor mixed, std::optional<Tensor> real, std::optional<Tensor> fake, std::vector<Tensor> weights,
    std::vector<Tensor> biases, std::vector<double> slopes, double target, bool one_sided, int64_t reduction,
    double weight, bool needs_grads) {
  const DType dtype = dtype_of(mixed);
  const size_t depth = weights.size();
  STD_TORCH_CHECK(dtype == DType::float32 || dtype == DType::float64,
                  "wgan_kernels::mlp_critic_loss: expected float32 or float64");
  STD_TORCH_CHECK(reduction == 1 || reduction == 2, "wgan_kernels::mlp_critic_loss: reduction must be 1 or 2");
  STD_TORCH_CHECK(mixed.dim() == 2 && depth > 0 && biases.size() == depth && slopes.size() == depth,
                  "wgan_kernels::mlp_critic_loss: mixed must be [B, D], with a weight, a bias and a slope per layer");
  STD_TORCH_CHECK(real.has_value() == fake.has_value(),
                  "wgan_kernels::mlp_critic_loss: real and fake must come together");
  mixed = dense(mixed);
  CriticSamples samples{mixed.data_ptr(), nullptr, nullptr, real.has_value()};
  if (samples.judged) {
    check_like(mixed, *real, "real");
    check_like(mixed, *fake, "fake");
    real = dense(*real);
    fake = dense(*fake);
    samples.real = real->data_ptr();
    samples.fake = fake->data_ptr();
  }
  std::vector<MlpLayer> layers(depth);
  std::vector<Tensor> grad_weights, grad_biases;
  int64_t in = mixed.size(1);
  for (size_t l = 0; l < depth; ++l) {
    check_layer(mixed, weights[l], biases[l], in, l);
    weights[l] = dense(weights[l]);
    biases[l] = dense(biases[l]);
    const int64_t out = weights[l].size(0);
    const bool biased = biases[l].numel() != 0;
    layers[l] = {in, out, weights[l].data_ptr(), biased ? biases[l].data_ptr() : nullptr, slopes[l], nullptr, nullptr};
    if (needs_grads) {
      grad_weights.push_back(new_dense(mixed, {out, in}, wide_type(dtype)));
      layers[l].grad_weight = grad_weights[l].mutable_data_ptr();
    }
    if (needs_grads && samples.judged) {
      grad_biases.push_back(new_dense(mixed, {biased ? out : 0}, wide_type(dtype)));
      layers[l].grad_bias = biased ? grad_biases[l].mutable_data_ptr() : nullptr;
    }
    in = out;
  }
  Tensor penalty = new_dense(mixed, {}, wide_type(dtype)), wasserstein = new_dense(mixed, {}, wide_type(dtype));
  Tensor norms = new_dense(mixed, {batch(mixed)}, ScalarType::Double);
  const NormPenalty settings{target, one_sided, static_cast<Reduction>(reduction), weight};
  const CriticLoss loss{penalty.mutable_data_ptr(), wasserstein.mutable_data_ptr(),
                        static_cast<double*>(norms.mutable_data_ptr())};
  const int64_t B = batch(mixed), count = static_cast<int64_t>(depth);
  on_device_of(
      mixed,
      [&] {
        wgk::mlp_critic_loss(cpu_isa(), torch_threads, dtype, settings, B, layers.data(), count, samples, loss);
      },
      [&](auto stream) {
        STD_TORCH_CHECK(count <= kMostMlpLayersOnCuda, "wgan_kernels::mlp_critic_loss: at most ", kMostMlpLayersOnCuda,
                        " layers on a GPU, got ", count);
        const Tensor workspace =
            new_workspace(mixed, mlp_critic_loss_cuda_workspace(dtype, B, layers.data(), count, samples.judged));
        return mlp_critic_loss_cuda(stream, dtype, settings, B, layers.data(), count, samples, loss,
                                    workspace.mutable_data_ptr());
      });
  return {penalty, wasserstein, norms, grad_weights, grad_biases};
}

}  // namespace wgk::operators
