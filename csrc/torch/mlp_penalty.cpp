#include "../core/mlp_penalty.h"

#include "operators.h"

namespace wgk::operators {
namespace {

void check_layer(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t in, size_t l) {
  STD_TORCH_CHECK(weight.dim() == 2 && weight.size(1) == in && weight.scalar_type() == x.scalar_type(),
                  "wgan_kernels::mlp_penalty: weights[", l, "] must be [out, ", in, "] of the dtype of x");
  STD_TORCH_CHECK(bias.numel() == 0 || (bias.dim() == 1 && bias.size(0) == weight.size(0) &&
                                        bias.scalar_type() == x.scalar_type()),
                  "wgan_kernels::mlp_penalty: biases[", l, "] must be [out] of the dtype of x, or empty");
  check_one_device("mlp_penalty", {&x, &weight, &bias});
}

}  // namespace

// x: [B, D]; weights: [out, in] each; biases: [out] each, or empty for none
// -> value: []; norms: [B] double; scores: [B, K]; grad_weights: [out, in] each, none of them without needs_grads
std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>> mlp_penalty(
    Tensor x, std::vector<Tensor> weights, std::vector<Tensor> biases, std::vector<double> slopes, double target,
    bool one_sided, int64_t reduction, double weight, bool needs_grads) {
  const DType dtype = dtype_of(x);
  const size_t depth = weights.size();
  STD_TORCH_CHECK(dtype == DType::float32 || dtype == DType::float64,
                  "wgan_kernels::mlp_penalty: expected float32 or float64");
  STD_TORCH_CHECK(reduction == 1 || reduction == 2, "wgan_kernels::mlp_penalty: reduction must be 1 or 2");
  STD_TORCH_CHECK(x.dim() == 2 && depth > 0 && biases.size() == depth && slopes.size() == depth,
                  "wgan_kernels::mlp_penalty: x must be [B, D], with a weight, a bias and a slope per layer");
  x = dense(x);
  std::vector<MlpLayer> layers(depth);
  std::vector<Tensor> grads;
  int64_t in = x.size(1);
  for (size_t l = 0; l < depth; ++l) {
    check_layer(x, weights[l], biases[l], in, l);
    weights[l] = dense(weights[l]);
    biases[l] = dense(biases[l]);
    const int64_t out = weights[l].size(0);
    layers[l] = {in, out, weights[l].data_ptr(), biases[l].numel() == 0 ? nullptr : biases[l].data_ptr(), slopes[l],
                 nullptr};
    if (needs_grads) {
      grads.push_back(new_dense(x, {out, in}, wide_type(dtype)));
      layers[l].grad_weight = grads[l].mutable_data_ptr();
    }
    in = out;
  }
  Tensor value = new_dense(x, {}, wide_type(dtype));
  Tensor norms = new_dense(x, {batch(x)}, ScalarType::Double);
  Tensor scores = new_dense(x, {batch(x), in}, wide_type(dtype));
  wgk::mlp_penalty(cpu_isa(), torch_threads, dtype, {target, one_sided, static_cast<Reduction>(reduction), weight},
                   batch(x), layers.data(), static_cast<int64_t>(depth), x.data_ptr(), value.mutable_data_ptr(),
                   static_cast<double*>(norms.mutable_data_ptr()), scores.mutable_data_ptr());
  return {value, norms, scores, grads};
}

}  // namespace wgk::operators
