#include "../core/kernel_sums.h"

#include <algorithm>

#include "operators.h"

namespace wgk {
namespace {

// Which gradients a call returns, as Python asks for them; the others are tensors without elements.
enum Needs : int64_t { kNeedsX = 1, kNeedsY = 2, kNeedsParams = 4 };

// The arguments that all passes share, checked and dense. A leading dimension of x and y counts problems.
struct Arguments {
  Tensor x, y, params;
  std::vector<int64_t> kinds;
  std::vector<double> thetas;
  PointPairs pairs{};
  KernelMixture mixture{};
  std::vector<int64_t> problem_shape;  // [] or [B]

  Arguments(const Tensor& x_in, const Tensor& y_in, const Tensor& params_in, std::vector<int64_t> kinds_in,
            int64_t begin, int64_t end, bool diagonal)
      : x(dense(x_in)), y(dense(y_in)), params(dense(params_in)), kinds(std::move(kinds_in)) {
    const int64_t dims = x.dim(), C = static_cast<int64_t>(kinds.size());
    STD_TORCH_CHECK((dims == 2 || dims == 3) && y.dim() == dims && x.size(dims - 1) == y.size(dims - 1) &&
                        (dims == 2 || x.size(0) == y.size(0)) && x.scalar_type() == y.scalar_type(),
                    "wgan_kernels::kernel_sums: x and y do not fit together");
    STD_TORCH_CHECK(params.scalar_type() == ScalarType::Double && params.dim() == 2 && params.size(0) == C &&
                        params.size(1) > 0,
                    "wgan_kernels::kernel_sums: params must be float64 of shape [components, parameters]");
    pairs = {dims == 3 ? x.size(0) : 1, x.size(dims - 2), y.size(dims - 2), x.size(dims - 1), dtype_of(x),
             x.data_ptr(), y.data_ptr(), begin, end, diagonal};
    if (end < 0) {
      pairs.end = pairs.N + pairs.M;
    }
    STD_TORCH_CHECK(0 <= begin && begin <= pairs.end && pairs.end <= pairs.N + pairs.M,
                    "wgan_kernels::kernel_sums: the rows must be a range within the points of x and y");
    for (int64_t c = 0; c < C; ++c) {
      STD_TORCH_CHECK(kinds[c] >= 0 && kinds[c] < kKernelKinds, "wgan_kernels::kernel_sums: unknown kind of kernel");
      thetas.push_back(static_cast<const double*>(params.data_ptr())[c * params.size(1)]);
    }
    mixture = {C, kinds.data(), thetas.data(), nullptr};
    if (dims == 3) {
      problem_shape.push_back(pairs.B);
    }
  }

  Tensor empty(std::vector<int64_t> tail, ScalarType type) const {
    std::vector<int64_t> shape = problem_shape;
    shape.insert(shape.end(), tail.begin(), tail.end());
    return new_dense(x, shape, type);
  }

  Tensor params_like(bool per_problem) const {
    const std::vector<int64_t> shape{params.size(0), params.size(1)};
    return per_problem ? empty(shape, ScalarType::Double) : new_dense(params, shape, ScalarType::Double);
  }

  // The dtype of `nothing` is the one that the gradient would have.
  Tensor nothing(ScalarType type) const { return new_dense(x, {0}, type); }

  // weights: [3, C], or one for each problem, as [B, 3, C].
  std::vector<double> expand_weights(const Tensor& weights) const {
    const int64_t size = 3 * mixture.C;
    STD_TORCH_CHECK(weights.scalar_type() == ScalarType::Double &&
                        (weights.numel() == size || weights.numel() == pairs.B * size),
                    "wgan_kernels::kernel_sums: weights must be float64 of shape [3, components]");
    const Tensor rows = dense(weights);
    const double* data = static_cast<const double*>(rows.data_ptr());
    std::vector<double> expanded(pairs.B * size);
    for (int64_t at = 0; at < pairs.B * size; ++at) {
      expanded[at] = data[weights.numel() == size ? at % size : at];
    }
    return expanded;
  }
};

// The gradients by x, y and params, allocated as needed; those by params of each problem, or of all together.
struct Gradients {
  Tensor x, y, params;
  std::vector<double> theta_sums;
  KernelGradients pointers;

  Gradients(const Arguments& arguments, int64_t needs, ScalarType type, DType dtype, bool per_problem)
      : x(needs & kNeedsX ? arguments.empty({arguments.pairs.N, arguments.pairs.D}, type) : arguments.nothing(type)),
        y(needs & kNeedsY ? arguments.empty({arguments.pairs.M, arguments.pairs.D}, type) : arguments.nothing(type)),
        params(needs & kNeedsParams ? arguments.params_like(per_problem)
                                    : arguments.nothing(ScalarType::Double)),
        theta_sums(needs & kNeedsParams ? arguments.pairs.B * 3 * arguments.mixture.C : 0),
        pointers{dtype, needs & kNeedsX ? x.mutable_data_ptr() : nullptr, needs & kNeedsY ? y.mutable_data_ptr() : nullptr} {}

  double* theta_data() { return theta_sums.empty() ? nullptr : theta_sums.data(); }

  // The gradient by each component's parameter, from the derivatives of the sums.
  void sum_params(const Arguments& arguments, const std::vector<double>& weights) {
    if (theta_sums.empty()) {
      return;
    }
    const int64_t C = arguments.mixture.C, Q = arguments.params.size(1), size = params.numel();
    double* grad = static_cast<double*>(params.mutable_data_ptr());
    std::fill_n(grad, size, 0.0);
    for (int64_t at = 0; at < arguments.pairs.B * 3 * C; ++at) {
      grad[at / (3 * C) * C * Q % size + at % C * Q] += weights[at] * theta_sums[at];
    }
  }
};

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kernel_sums_cpu(Tensor x, Tensor y, Tensor weights, Tensor params,
                                                                   std::vector<int64_t> kinds, int64_t begin,
                                                                   int64_t end, bool diagonal, int64_t needs) {
  const Arguments arguments(x, y, params, std::move(kinds), begin, end, diagonal);
  const int64_t B = arguments.pairs.B, C = arguments.mixture.C;
  const std::vector<double> expanded = arguments.expand_weights(weights);
  // Gradients that wait for a factor stay in float32 where the points are half as wide.
  const ScalarType wide = wide_type(arguments.pairs.dtype);
  const DType wide_dtype = wide == ScalarType::Double ? DType::float64 : DType::float32;
  Gradients gradients(arguments, needs, wide, wide_dtype, true);
  Tensor value = arguments.empty({}, wide), sums = arguments.empty({3, C}, ScalarType::Double);
  double* sums_data = static_cast<double*>(sums.mutable_data_ptr());
  kernel_sums(cpu_isa(), torch_threads, arguments.pairs, arguments.mixture, expanded.data(), sums_data,
              gradients.theta_data(), gradients.pointers);
  gradients.sum_params(arguments, expanded);
  for (int64_t b = 0; b < B; ++b) {
    double total = 0;
    for (int64_t at = b * 3 * C; at < (b + 1) * 3 * C; ++at) {
      total += expanded[at] * sums_data[at];
    }
    wide == ScalarType::Double ? void(static_cast<double*>(value.mutable_data_ptr())[b] = total)
                               : void(static_cast<float*>(value.mutable_data_ptr())[b] = static_cast<float>(total));
  }
  return {value, sums, gradients.x, gradients.y, gradients.params};
}

std::tuple<Tensor, Tensor, Tensor> kernel_sums_backward_cpu(Tensor grad_sums, Tensor x, Tensor y, Tensor params,
                                                            std::vector<int64_t> kinds, int64_t begin, int64_t end,
                                                            bool diagonal, int64_t needs) {
  const Arguments arguments(x, y, params, std::move(kinds), begin, end, diagonal);
  const std::vector<double> weights = arguments.expand_weights(grad_sums);
  Gradients gradients(arguments, needs, x.scalar_type(), arguments.pairs.dtype, false);
  std::vector<double> sums(weights.size());
  kernel_sums(cpu_isa(), torch_threads, arguments.pairs, arguments.mixture, weights.data(), sums.data(),
              gradients.theta_data(), gradients.pointers);
  gradients.sum_params(arguments, weights);
  return {gradients.x, gradients.y, gradients.params};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> kernel_sums_double_backward_cpu(
    std::optional<Tensor> grad_grad_x, std::optional<Tensor> grad_grad_y, std::optional<Tensor> grad_grad_params,
    Tensor grad_sums, Tensor x, Tensor y, Tensor params, std::vector<int64_t> kinds, int64_t begin, int64_t end,
    bool diagonal, int64_t needs) {
  Arguments arguments(x, y, params, std::move(kinds), begin, end, diagonal);
  const int64_t C = arguments.mixture.C, Q = params.size(1);
  const auto fitting = [](const std::optional<Tensor>& along, const Tensor& like) {
    STD_TORCH_CHECK(!along || (along->scalar_type() == like.scalar_type() && along->numel() == like.numel()),
                    "wgan_kernels::kernel_sums_double_backward: a gradient does not fit its tensor");
    return along ? std::optional<Tensor>(dense(*along)) : std::nullopt;
  };
  const std::optional<Tensor> along_x = fitting(grad_grad_x, x), along_y = fitting(grad_grad_y, y);
  const std::optional<Tensor> along_params = fitting(grad_grad_params, params);
  std::vector<double> along_thetas(C, 0.0);
  for (int64_t c = 0; along_params && c < C; ++c) {
    along_thetas[c] = static_cast<const double*>(along_params->data_ptr())[c * Q];
  }
  arguments.mixture.along_thetas = along_thetas.data();
  const std::vector<double> weights = arguments.expand_weights(grad_sums);
  Gradients gradients(arguments, needs, x.scalar_type(), arguments.pairs.dtype, false);
  Tensor grad_grad_sums = arguments.empty({3, C}, ScalarType::Double);
  kernel_sums_tangent(cpu_isa(), torch_threads, arguments.pairs, arguments.mixture,
                      along_x ? along_x->data_ptr() : nullptr, along_y ? along_y->data_ptr() : nullptr, weights.data(),
                      static_cast<double*>(grad_grad_sums.mutable_data_ptr()), gradients.theta_data(),
                      gradients.pointers);
  gradients.sum_params(arguments, weights);
  return {grad_grad_sums, gradients.x, gradients.y, gradients.params};
}

}  // namespace wgk
