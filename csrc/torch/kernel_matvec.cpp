#include "../core/kernel_matvec.h"

#include "operators.h"
#include "pairs.h"

namespace wgk::operators {

// x: [N, D] or [B, N, D]; y: [.., M, D]; v: [.., M, P], double for float64 points, else float; weights: [C];
// params: [C, Q] -> [.., end - begin, P]
Tensor kernel_matvec(Tensor x, Tensor y, Tensor v, Tensor weights, Tensor params, std::vector<int64_t> kinds,
                     std::vector<double> shapes, bool allow_tf32, int64_t term, int64_t begin, int64_t end,
                     bool diagonal) {
  check_one_device("kernel_matvec", {&x, &y, &v, &weights, &params});
  const Points points("kernel_matvec", x, y);
  const Mixture mixture("kernel_matvec", params, std::move(kinds), std::move(shapes));
  const int64_t dims = x.dim();
  const ScalarType wide = wide_type(points.dtype);
  STD_TORCH_CHECK(v.dim() == dims && v.size(dims - 2) == points.M && (dims == 2 || v.size(0) == points.B) &&
                      v.scalar_type() == wide,
                  "wgan_kernels::kernel_matvec: v does not fit x and y");
  STD_TORCH_CHECK(weights.scalar_type() == ScalarType::Double && weights.numel() == mixture.C,
                  "wgan_kernels::kernel_matvec: weights must be float64, one of each component");
  STD_TORCH_CHECK(term >= 0 && term < kKernelTerms, "wgan_kernels::kernel_matvec: unknown term");
  const Tensor dense_v = dense(v), dense_weights = dense(weights);
  const int64_t last = range_end("kernel_matvec", begin, end, points.N), P = v.size(dims - 1);
  const KernelProduct product{points.B, points.N, points.M, points.D, P, points.dtype, points.x.data_ptr(),
                              points.y.data_ptr(), dense_v.data_ptr(), begin, last, diagonal,
                              static_cast<KernelTerm>(term)};
  Tensor out = points.empty({last - begin, P}, wide);
  void* out_data = out.mutable_data_ptr();
  on_device_of(
      x,
      [&] {
        wgk::kernel_matvec(cpu_isa(), torch_threads, product, mixture.core(), doubles(dense_weights), out_data);
      },
      [&](auto stream) {
        const MatmulPrecision precision = allow_tf32 ? MatmulPrecision::tf32 : MatmulPrecision::ieee;
        const Tensor workspace = new_workspace(x, kernel_matvec_cuda_workspace(product));
        return kernel_matvec_cuda(stream, precision, product, mixture.core(), doubles(dense_weights), out_data,
                                  workspace.mutable_data_ptr());
      });
  return out;
}

}  // namespace wgk::operators
