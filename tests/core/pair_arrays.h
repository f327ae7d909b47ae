// The arguments of kernel_sums and kernel_matvec that both test modules share.
#pragma once

#include <pybind11/stl.h>

#include "arrays.h"
#include "kernel_sums.h"

namespace wgk {

// A sum of kernel functions: kinds, shapes, parameters, and weights [C] or [B, 3, C], whose meaning is the operator's.
struct Mixture {
  std::vector<int64_t> kinds;
  std::vector<double> thetas, along_thetas, weights, shapes;

  KernelMixture view() const {
    check(thetas.size() == kinds.size() && shapes.size() == kinds.size() && (along_thetas.empty() || along_thetas.size() == kinds.size()),
          "a kernel has the wrong number of parameters");
    for (int64_t kind : kinds) {
      check(0 <= kind && kind < kKernelKinds, "unknown kind of kernel");
    }
    return {static_cast<int64_t>(kinds.size()), kinds.data(), shapes.data(), thetas.data(),
            along_thetas.empty() ? nullptr : along_thetas.data()};
  }
};

inline PointPairs point_pairs(DType dtype, const py::array& x, const py::array& y, int64_t begin, int64_t end,
                       bool diagonal) {
  check(x.ndim() == 3 && y.ndim() == 3 && x.shape(0) == y.shape(0) && x.shape(2) == y.shape(2),
        "x and y are not [B, N, D] and [B, M, D]");
  check(0 <= begin && begin <= end && end <= x.shape(1) + y.shape(1), "not a range of the rows");
  return {x.shape(0), x.shape(1), y.shape(1), x.shape(2), dtype, in(x, dtype, x.size()), in(y, dtype, y.size()),
          begin, end, diagonal};
}

// None for what is not wanted.
inline void* out_or_null(py::object& array, DType dtype, int64_t count) {
  if (array.is_none()) {
    return nullptr;
  }
  py::array wanted = array.cast<py::array>();
  return out(wanted, dtype, count);
}

inline void bind_mixture(py::module_& m) {
  py::class_<Mixture>(m, "Mixture", py::module_local())
      .def(py::init([](std::vector<int64_t> kinds, std::vector<double> thetas, std::vector<double> weights,
                       std::vector<double> along_thetas, std::vector<double> shapes) {
             if (shapes.empty()) {
               shapes.resize(kinds.size(), 1.0);
             }
             return Mixture{std::move(kinds), std::move(thetas), std::move(along_thetas), std::move(weights),
                            std::move(shapes)};
           }),
           py::arg("kinds"), py::arg("thetas"), py::arg("weights"), py::arg("along_thetas") = std::vector<double>(),
           py::arg("shapes") = std::vector<double>());
}

}  // namespace wgk
