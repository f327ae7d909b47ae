#include "../core/kernel_sums.h"

#include <algorithm>
#include <optional>

#include "operators.h"
#include "pairs.h"

namespace wgk::operators {
namespace {

// Which gradients a call returns, as Python asks for them; the others are tensors without elements.
enum Needs : int64_t { kNeedsX = 1, kNeedsY = 2, kNeedsParams = 4 };

// The arguments that all passes share.
struct Arguments {
  Points points;
  Mixture mixture;
  Tensor weights;  // [B, 3, C]
  PointPairs pairs;
  MatmulPrecision precision;

  // weights_in: [3, C] for all problems alike, or [B, 3, C].
  Arguments(const char* name, const Tensor& x, const Tensor& y, const Tensor& weights_in, const Tensor& params,
            std::vector<int64_t> kinds, std::vector<double> shapes, bool allow_tf32, int64_t begin, int64_t end,
            bool diagonal)
      : points(name, x, y), mixture(name, params, std::move(kinds), std::move(shapes)), weights(dense(weights_in)),
        precision(allow_tf32 ? MatmulPrecision::tf32 : MatmulPrecision::ieee) {
    check_one_device(name, {&x, &y, &weights_in, &params});
    const int64_t size = 3 * mixture.C;
    STD_TORCH_CHECK(weights.scalar_type() == ScalarType::Double &&
                        (weights.numel() == size || weights.numel() == points.B * size),
                    "wgan_kernels::", name, ": weights must be float64 of shape [3, components]");
    if (weights.numel() != points.B * size) {
      Tensor expanded = new_dense(weights, {points.B, 3, mixture.C}, ScalarType::Double);
      weights = torch::stable::copy_(expanded, weights);
    }
    pairs = {points.B, points.N, points.M, points.D, points.dtype, points.x.data_ptr(), points.y.data_ptr(), begin,
             range_end(name, begin, end, points.N + points.M), diagonal};
  }

  Tensor empty_sums() const { return points.empty({3, mixture.C}, ScalarType::Double); }
};

// The gradients by x, y and params, allocated as needed; those by params of each problem, or of all together.
struct Gradients {
  Tensor x, y, params, theta_sums;
  KernelGradients pointers;
  bool by_params, per_problem;

  Gradients(const Arguments& arguments, int64_t needs, ScalarType type, DType dtype, bool per_problem_in)
      // The dtype of an empty tensor is the one that the gradient would have.
      : x(arguments.points.gradient(needs & kNeedsX, arguments.points.N, type)),
        y(arguments.points.gradient(needs & kNeedsY, arguments.points.M, type)),
        params(new_dense(arguments.points.x, {0}, ScalarType::Double)), theta_sums(params),
        pointers{dtype, needs & kNeedsX ? x.mutable_data_ptr() : nullptr,
                 needs & kNeedsY ? y.mutable_data_ptr() : nullptr},
        by_params(needs & kNeedsParams), per_problem(per_problem_in && arguments.points.has_problems) {
    if (by_params) {
      const int64_t B = arguments.points.B, C = arguments.mixture.C, Q = arguments.mixture.Q;
      params = new_dense(params, per_problem ? std::vector{B, C, Q} : std::vector{C, Q}, ScalarType::Double);
      theta_sums = new_dense(params, {B, 3, C}, ScalarType::Double);
    }
  }

  double* theta_data() const { return by_params ? mutable_doubles(theta_sums) : nullptr; }

  PairMode mode() const {
    return pointers.any() ? PairMode::gradients : PairMode::values;
  }

  // Fills params from the derivatives of the sums.
  void sum_params(const Arguments& arguments) {
    if (!by_params) {
      return;
    }
    if (!params.is_cpu()) {
      const Tensor each = multiply(arguments.weights, theta_sums);
      Tensor column = torch::stable::select(torch::stable::zero_(params), -1, 0);
      const std::vector<int64_t> summed = per_problem ? std::vector<int64_t>{1} : std::vector<int64_t>{0, 1};
      torch::stable::copy_(column, torch::stable::sum(each, summed));
      return;
    }
    const int64_t C = arguments.mixture.C, Q = arguments.mixture.Q, size = params.numel();
    const double *weights = doubles(arguments.weights), *thetas = doubles(theta_sums);
    double* grad = mutable_doubles(params);
    std::fill_n(grad, size, 0.0);
    for (int64_t at = 0; at < arguments.points.B * 3 * C; ++at) {
      grad[at / (3 * C) * C * Q % size + at % C * Q] += weights[at] * thetas[at];
    }
  }
};

// value[b] = sum(weights[b] * sums[b])
template <class T>
void sum_values(const Arguments& arguments, const double* sums, T* value) {
  const double* weights = doubles(arguments.weights);
  const int64_t size = 3 * arguments.mixture.C;
  for (int64_t b = 0; b < arguments.points.B; ++b) {
    double total = 0;
    for (int64_t at = b * size; at < (b + 1) * size; ++at) {
      total += weights[at] * sums[at];
    }
    value[b] = static_cast<T>(total);
  }
}

// value: [B], or null where nobody asks for it.
void run_kernel_sums(const Arguments& arguments, const Gradients& gradients, double* sums, void* value) {
  const PointPairs& pairs = arguments.pairs;
  const KernelMixture mixture = arguments.mixture.core();
  const double* weights = doubles(arguments.weights);
  double* theta_sums = gradients.theta_data();
  on_device_of(
      arguments.points.x,
      [&] {
        wgk::kernel_sums(cpu_isa(), torch_threads, pairs, mixture, weights, sums, theta_sums, gradients.pointers);
        if (value != nullptr && pairs.dtype == DType::float64) {
          sum_values(arguments, sums, static_cast<double*>(value));
        } else if (value != nullptr) {
          sum_values(arguments, sums, static_cast<float*>(value));
        }
      },
      [&](auto stream) {
        const int64_t bytes = kernel_sums_cuda_workspace(pairs, mixture.C, gradients.mode());
        const Tensor workspace = new_workspace(arguments.points.x, bytes);
        return kernel_sums_cuda(stream, arguments.precision, pairs, mixture, weights, value, sums, theta_sums,
                                gradients.pointers, workspace.mutable_data_ptr());
      });
}

}  // namespace

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kernel_sums(Tensor x, Tensor y, Tensor weights, Tensor params,
                                                               std::vector<int64_t> kinds,
                                                               std::vector<double> shapes, bool allow_tf32,
                                                               int64_t begin, int64_t end, bool diagonal,
                                                               int64_t needs) {
  const Arguments arguments("kernel_sums", x, y, weights, params, std::move(kinds), std::move(shapes), allow_tf32,
                            begin, end, diagonal);
  // Gradients that wait for a factor stay in float32 where the points are half as wide.
  const ScalarType wide = wide_type(arguments.pairs.dtype);
  const DType wide_dtype = wide == ScalarType::Double ? DType::float64 : DType::float32;
  Gradients gradients(arguments, needs, wide, wide_dtype, true);
  Tensor value = arguments.points.empty({}, wide), sums = arguments.empty_sums();
  run_kernel_sums(arguments, gradients, mutable_doubles(sums), value.mutable_data_ptr());
  gradients.sum_params(arguments);
  return {value, sums, gradients.x, gradients.y, gradients.params};
}

std::tuple<Tensor, Tensor, Tensor> kernel_sums_backward(Tensor grad_sums, Tensor x, Tensor y, Tensor params,
                                                        std::vector<int64_t> kinds, std::vector<double> shapes,
                                                        bool allow_tf32, int64_t begin, int64_t end, bool diagonal,
                                                        int64_t needs) {
  const Arguments arguments("kernel_sums_backward", x, y, grad_sums, params, std::move(kinds), std::move(shapes),
                            allow_tf32, begin, end, diagonal);
  Gradients gradients(arguments, needs, x.scalar_type(), arguments.pairs.dtype, false);
  const Tensor sums = arguments.empty_sums();
  run_kernel_sums(arguments, gradients, mutable_doubles(sums), nullptr);
  gradients.sum_params(arguments);
  return {gradients.x, gradients.y, gradients.params};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> kernel_sums_double_backward(
    std::optional<Tensor> grad_grad_x, std::optional<Tensor> grad_grad_y, std::optional<Tensor> grad_grad_params,
    Tensor grad_sums, Tensor x, Tensor y, Tensor params, std::vector<int64_t> kinds, std::vector<double> shapes,
    bool allow_tf32, int64_t begin, int64_t end, bool diagonal, int64_t needs) {
  const char* name = "kernel_sums_double_backward";
  const Arguments arguments(name, x, y, grad_sums, params, std::move(kinds), std::move(shapes), allow_tf32, begin, end,
                            diagonal);
  const auto fitting = [&](const std::optional<Tensor>& along, const Tensor& like) {
    STD_TORCH_CHECK(!along || (along->scalar_type() == like.scalar_type() && along->numel() == like.numel()),
                    "wgan_kernels::", name, ": a gradient does not fit its tensor");
    check_one_device(name, {&like, along ? &*along : nullptr});
    return along ? std::optional<Tensor>(dense(*along)) : std::nullopt;
  };
  const std::optional<Tensor> along_x = fitting(grad_grad_x, x), along_y = fitting(grad_grad_y, y);
  std::optional<Tensor> along_params = fitting(grad_grad_params, params);
  if (!along_params) {
    along_params = torch::stable::new_zeros(params, {&arguments.mixture.C, 1});
  } else {
    along_params = first_column(torch::stable::view(*along_params, params.sizes()));
  }
  Gradients gradients(arguments, needs, x.scalar_type(), arguments.pairs.dtype, false);
  Tensor grad_grad_sums = arguments.empty_sums();
  const PointPairs& pairs = arguments.pairs;
  KernelMixture mixture = arguments.mixture.core();
  mixture.along_thetas = doubles(*along_params);
  const void* u = along_x ? along_x->data_ptr() : nullptr;
  const void* v = along_y ? along_y->data_ptr() : nullptr;
  const double* weights = doubles(arguments.weights);
  double *sums = mutable_doubles(grad_grad_sums), *theta_sums = gradients.theta_data();
  on_device_of(
      x,
      [&] {
        kernel_sums_tangent(cpu_isa(), torch_threads, pairs, mixture, u, v, weights, sums, theta_sums,
                            gradients.pointers);
      },
      [&](auto stream) {
        const int64_t bytes = kernel_sums_cuda_workspace(pairs, mixture.C, PairMode::tangents);
        const Tensor workspace = new_workspace(x, bytes);
        return kernel_sums_tangent_cuda(stream, arguments.precision, pairs, mixture, u, v, weights, sums, theta_sums,
                                        gradients.pointers, workspace.mutable_data_ptr());
      });
  gradients.sum_params(arguments);
  return {grad_grad_sums, gradients.x, gradients.y, gradients.params};
}

}  // namespace wgk::operators
