#include "../pair_arrays.h"
#include "binding.h"

namespace wgk {
namespace {

MatmulPrecision precision_named(const std::string& name) {
  check(name == "ieee" || name == "tf32", "unknown precision " + name);
  return name == "ieee" ? MatmulPrecision::ieee : MatmulPrecision::tf32;
}

PairMode mode_of(const KernelGradients& gradients) {
  return gradients.x != nullptr || gradients.y != nullptr ? PairMode::gradients : PairMode::values;
}

const Binding bind_kernel_sums([](py::module_& m) {
  bind_mixture(m);

  m.def(
      "kernel_sums",
      [](const Run& run, const std::string& dtype_name, const py::array& x, const py::array& y,
         const std::pair<int64_t, int64_t>& rows, bool diagonal, const Mixture& mixture, py::array sums,
         py::object theta_sums, py::object grad_x, py::object grad_y, py::object value, const std::string& precision,
         py::object grad_dtype) {
        const DType dtype = dtype_named(dtype_name);
        const DType stored = grad_dtype.is_none() ? dtype : dtype_named(grad_dtype.cast<std::string>());
        const PointPairs pairs = point_pairs(dtype, x, y, rows.first, rows.second, diagonal);
        const int64_t C = static_cast<int64_t>(mixture.kinds.size()), size = pairs.B * 3 * C;
        check(static_cast<int64_t>(mixture.weights.size()) == size, "weights are not [B, 3, C]");
        const KernelGradients gradients{stored, out_or_null(grad_x, stored, x.size()),
                                        out_or_null(grad_y, stored, y.size())};
        void* values = out_or_null(value, wide(dtype), pairs.B);
        double* results = static_cast<double*>(out(sums, DType::float64, size));
        double* by_theta = static_cast<double*>(out_or_null(theta_sums, DType::float64, size));
        const Workspace workspace(kernel_sums_cuda_workspace(pairs, C, mode_of(gradients)));
        launch(run, [&] {
          return kernel_sums_cuda(nullptr, precision_named(precision), pairs, mixture.view(), mixture.weights.data(),
                                  values, results, by_theta, gradients, workspace.get());
        });
      },
      py::arg("run"), py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("rows"), py::arg("diagonal"),
      py::arg("mixture"), py::arg("sums"), py::arg("theta_sums"), py::arg("grad_x"), py::arg("grad_y"),
      py::arg("value") = py::none(), py::arg("precision") = "ieee", py::arg("grad_dtype") = py::none());

  m.def(
      "kernel_sums_tangent",
      [](const Run& run, const std::string& dtype_name, const py::array& x, const py::array& y,
         const py::object& along_x, const py::object& along_y, const std::pair<int64_t, int64_t>& rows, bool diagonal,
         const Mixture& mixture, py::array sums, py::object theta_sums, py::object grad_x, py::object grad_y,
         const std::string& precision) {
        const DType dtype = dtype_named(dtype_name);
        const PointPairs pairs = point_pairs(dtype, x, y, rows.first, rows.second, diagonal);
        const int64_t C = static_cast<int64_t>(mixture.kinds.size()), size = pairs.B * 3 * C;
        check(static_cast<int64_t>(mixture.weights.size()) == size, "weights are not [B, 3, C]");
        check(mixture.along_thetas.size() == mixture.kinds.size(), "along_thetas are missing");
        const auto along = [&](const py::object& array, int64_t count) {
          return array.is_none() ? nullptr : in(array.cast<py::array>(), dtype, count);
        };
        const void* directions[2] = {along(along_x, x.size()), along(along_y, y.size())};
        const KernelGradients gradients{dtype, out_or_null(grad_x, dtype, x.size()),
                                        out_or_null(grad_y, dtype, y.size())};
        double* results = static_cast<double*>(out(sums, DType::float64, size));
        double* by_theta = static_cast<double*>(out_or_null(theta_sums, DType::float64, size));
        const Workspace workspace(kernel_sums_cuda_workspace(pairs, C, PairMode::tangents));
        launch(run, [&] {
          return kernel_sums_tangent_cuda(nullptr, precision_named(precision), pairs, mixture.view(), directions[0],
                                          directions[1], mixture.weights.data(), results, by_theta, gradients,
                                          workspace.get());
        });
      },
      py::arg("run"), py::arg("dtype"), py::arg("x"), py::arg("y"), py::arg("along_x"), py::arg("along_y"),
      py::arg("rows"), py::arg("diagonal"), py::arg("mixture"), py::arg("sums"), py::arg("theta_sums"),
      py::arg("grad_x"), py::arg("grad_y"), py::arg("precision") = "ieee");
});

}  // namespace
}  // namespace wgk
