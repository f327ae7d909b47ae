#include "pairs.h"

namespace wgk {

Points::Points(const char* name, const Tensor& x_in, const Tensor& y_in) : x(dense(x_in)), y(dense(y_in)) {
  const int64_t dims = x.dim();
  STD_TORCH_CHECK((dims == 2 || dims == 3) && y.dim() == dims && x.size(dims - 1) == y.size(dims - 1) &&
                      (dims == 2 || x.size(0) == y.size(0)) && x.scalar_type() == y.scalar_type(),
                  "wgan_kernels::", name, ": x and y do not fit together");
  has_problems = dims == 3;
  B = has_problems ? x.size(0) : 1;
  N = x.size(dims - 2);
  M = y.size(dims - 2);
  D = x.size(dims - 1);
  dtype = dtype_of(x);
}

Tensor Points::empty(std::vector<int64_t> tail, ScalarType type) const {
  if (has_problems) {
    tail.insert(tail.begin(), B);
  }
  return new_dense(x, tail, type);
}

Mixture::Mixture(const char* name, const Tensor& params_in, std::vector<int64_t> kinds_in,
                 std::vector<double> shapes_in)
    : kinds(std::move(kinds_in)), shapes(std::move(shapes_in)), params(params_in),
      C(static_cast<int64_t>(kinds.size())) {
  STD_TORCH_CHECK(static_cast<int64_t>(shapes.size()) == C, "wgan_kernels::", name, ": one shape for each kind");
  STD_TORCH_CHECK(params.scalar_type() == ScalarType::Double && params.dim() == 2 && params.size(0) == C &&
                      params.size(1) > 0,
                  "wgan_kernels::", name, ": params must be float64 of shape [components, parameters]");
  for (const int64_t kind : kinds) {
    STD_TORCH_CHECK(kind >= 0 && kind < kKernelKinds, "wgan_kernels::", name, ": unknown kind of kernel");
  }
  STD_TORCH_CHECK(params.is_cpu() || C <= kMaxComponents, "wgan_kernels::", name, ": at most ", kMaxComponents,
                  " kernel functions on a GPU, got ", C);
  Q = params.size(1);
  thetas = first_column(params);
}

KernelMixture Mixture::core() const { return {C, kinds.data(), shapes.data(), doubles(thetas), nullptr}; }

Tensor first_column(const Tensor& params) {
  return dense(params.size(1) == 1 ? params : torch::stable::select(params, 1, 0));
}

Tensor multiply(const Tensor& a, const Tensor& b) {
  std::array<StableIValue, 2> stack{torch::stable::detail::from(a), torch::stable::detail::from(b)};
  STABLE_TORCH_ERROR_CODE_CHECK(torch_call_dispatcher("aten::mul", "Tensor", stack.data(), TORCH_ABI_VERSION));
  return torch::stable::detail::to<Tensor>(stack[0]);
}

int64_t range_end(const char* name, int64_t begin, int64_t end, int64_t rows) {
  end = end < 0 ? rows : end;
  STD_TORCH_CHECK(0 <= begin && begin <= end && end <= rows, "wgan_kernels::", name,
                  ": the rows must be a range within the points");
  return end;
}

}  // namespace wgk
