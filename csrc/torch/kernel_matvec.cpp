#include "../core/kernel_matvec.h"

#include "operators.h"

namespace wgk {

// x: [N, D] or [B, N, D]; y: [.., M, D]; v: [.., M, P], double for float64 points, else float; weights: [C];
// params: [C, Q] -> [.., end - begin, P]
Tensor kernel_matvec_cpu(Tensor x, Tensor y, Tensor v, Tensor weights, Tensor params, std::vector<int64_t> kinds,
                         int64_t term, int64_t begin, int64_t end, bool diagonal) {
  const int64_t dims = x.dim(), C = static_cast<int64_t>(kinds.size());
  const DType dtype = dtype_of(x);
  STD_TORCH_CHECK((dims == 2 || dims == 3) && y.dim() == dims && v.dim() == dims &&
                      x.size(dims - 1) == y.size(dims - 1) && v.size(dims - 2) == y.size(dims - 2) &&
                      (dims == 2 || (x.size(0) == y.size(0) && x.size(0) == v.size(0))) &&
                      x.scalar_type() == y.scalar_type() && v.scalar_type() == wide_type(dtype),
                  "wgan_kernels::kernel_matvec: x, y and v do not fit together");
  STD_TORCH_CHECK(params.scalar_type() == ScalarType::Double && params.dim() == 2 && params.size(0) == C &&
                      params.size(1) > 0 && weights.scalar_type() == ScalarType::Double && weights.numel() == C,
                  "wgan_kernels::kernel_matvec: params and weights must be float64, of one row per component");
  STD_TORCH_CHECK(term >= 0 && term < kKernelTerms, "wgan_kernels::kernel_matvec: unknown term");
  const Tensor dense_x = dense(x), dense_y = dense(y), dense_v = dense(v);
  const Tensor dense_weights = dense(weights), dense_params = dense(params);
  KernelProduct product{dims == 3 ? x.size(0) : 1, x.size(dims - 2), y.size(dims - 2), x.size(dims - 1),
                        v.size(dims - 1), dtype, dense_x.data_ptr(), dense_y.data_ptr(), dense_v.data_ptr(), begin,
                        end < 0 ? x.size(dims - 2) : end, diagonal, static_cast<KernelTerm>(term)};
  STD_TORCH_CHECK(0 <= begin && begin <= product.end && product.end <= product.N,
                  "wgan_kernels::kernel_matvec: the rows must be a range within the points of x");
  std::vector<double> thetas(C);
  for (int64_t c = 0; c < C; ++c) {
    STD_TORCH_CHECK(kinds[c] >= 0 && kinds[c] < kKernelKinds, "wgan_kernels::kernel_matvec: unknown kind of kernel");
    thetas[c] = static_cast<const double*>(dense_params.data_ptr())[c * params.size(1)];
  }
  std::vector<int64_t> shape{product.end - begin, product.P};
  if (dims == 3) {
    shape.insert(shape.begin(), product.B);
  }
  Tensor out = new_dense(x, shape, wide_type(dtype));
  kernel_matvec(cpu_isa(), torch_threads, product, {C, kinds.data(), thetas.data(), nullptr},
                static_cast<const double*>(dense_weights.data_ptr()), out.mutable_data_ptr());
  return out;
}

}  // namespace wgk
