#include "../pair_arrays.h"
#include "binding.h"
#include "kernel_matvec.h"

namespace wgk {
namespace {

const Binding bind_kernel_matvec([](py::module_& m) {
  m.def(
      "kernel_matvec",
      [](const Run& run, const std::string& dtype_name, const py::array& x, const py::array& y, const py::array& v,
         const std::pair<int64_t, int64_t>& rows, bool diagonal, int64_t term, const Mixture& mixture,
         py::array result, const std::string& precision) {
        const DType dtype = dtype_named(dtype_name);
        const auto [begin, end] = rows;
        check(x.ndim() == 3 && y.ndim() == 3 && v.ndim() == 3 && x.shape(0) == y.shape(0) && x.shape(2) == y.shape(2),
              "x, y and v are not [B, N, D], [B, M, D] and [B, M, P]");
        check(0 <= begin && begin <= end && end <= x.shape(1) && 0 <= term && term < kKernelTerms,
              "not such rows or term");
        check(mixture.weights.size() == mixture.kinds.size(), "weights are not [C]");
        const int64_t B = x.shape(0), P = v.shape(2);
        const KernelProduct product{B, x.shape(1), y.shape(1), x.shape(2), P, dtype, in(x, dtype, x.size()),
                                    in(y, dtype, y.size()), in(v, wide(dtype), B * y.shape(1) * P), begin, end,
                                    diagonal, static_cast<KernelTerm>(term)};
        void* results = out(result, wide(dtype), B * (end - begin) * P);
        const Workspace workspace(kernel_matvec_cuda_workspace(product));
        launch(run, [&] {
          return kernel_matvec_cuda(nullptr, precision == "tf32" ? MatmulPrecision::tf32 : MatmulPrecision::ieee,
                                    product, mixture.view(), mixture.weights.data(), results, workspace.get());
        });
      },
      py::arg("run"), py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("v"), py::arg("rows"), py::arg("diagonal"),
      py::arg("term"), py::arg("mixture"), py::arg("result"), py::arg("precision") = "ieee");
});

}  // namespace
}  // namespace wgk
