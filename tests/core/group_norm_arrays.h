// What the modules of the core and of the CUDA kernels are given for group_norm. Parameters that are not there, and
// gradients that are not wanted, are arrays without elements.
#pragma once

#include "arrays.h"
#include "group_norm.h"

namespace wgk {

inline GroupNorm norm_of(const py::array& x, int64_t groups, bool channels_last) {
  check(x.ndim() == 3, "x is not [B, C, S], or [B, S, C]");
  const int64_t C = x.shape(channels_last ? 2 : 1), S = x.shape(channels_last ? 1 : 2);
  check(groups > 0 && C % groups == 0, "groups do not divide the channels");
  return {x.shape(0), C, S, groups, channels_last};
}

struct NormArrays {
  DType dtype;
  GroupNorm norm;

  int64_t count() const { return norm.B * norm.C * norm.S; }
  const void* samples(const py::array& array) const { return in(array, dtype, count()); }
  void* results(py::array& array) const { return out(array, dtype, count()); }
  void* wanted_results(py::array& array) const { return array.size() == 0 ? nullptr : results(array); }
  const void* param(const py::array& array) const {
    return array.size() == 0 ? nullptr : in(array, wide(dtype), norm.C);
  }
  void* param_grad(py::array& array) const { return array.size() == 0 ? nullptr : out(array, wide(dtype), norm.C); }
  const void* known(const py::array& array) const { return in(array, wide(dtype), norm.B * norm.G); }
  void* statistics(py::array& array) const { return out(array, wide(dtype), norm.B * norm.G); }
};

// f(NormArrays, pointers) of the arguments that Python gives, after those that say how to run.
template <class Run, class F>
void def_group_norm(py::module_& m, const F& f) {
  m.def("group_norm", [f](const Run& run, const std::string& dtype, int64_t groups, bool channels_last, double eps,
                          const py::array& x, const py::array& weight, const py::array& bias, py::array y,
                          py::array mean, py::array rstd) {
    const NormArrays of{dtype_named(dtype), norm_of(x, groups, channels_last)};
    f(run, of, eps, GroupNormForward{of.samples(x), of.param(weight), of.param(bias), of.results(y),
                                     of.statistics(mean), of.statistics(rstd)});
  });

  m.def("group_norm_backward", [f](const Run& run, const std::string& dtype, int64_t groups, bool channels_last,
                                   const py::array& grad_y, const py::array& x, const py::array& weight,
                                   const py::array& mean, const py::array& rstd, py::array grad_x,
                                   py::array grad_weight, py::array grad_bias) {
    const NormArrays of{dtype_named(dtype), norm_of(x, groups, channels_last)};
    f(run, of, 0.0, GroupNormBackward{of.samples(grad_y), of.samples(x), of.param(weight), of.known(mean),
                                      of.known(rstd), of.results(grad_x), of.param_grad(grad_weight),
                                      of.param_grad(grad_bias)});
  });

  m.def("group_norm_double_backward",
        [f](const Run& run, const std::string& dtype, int64_t groups, bool channels_last, const py::array& grad_grad_x,
            const py::array& grad_grad_weight, const py::array& grad_grad_bias, const py::array& grad_y,
            const py::array& x, const py::array& weight, const py::array& mean, const py::array& rstd,
            py::array grad_grad_y, py::array grad_x, py::array grad_weight) {
          const NormArrays of{dtype_named(dtype), norm_of(x, groups, channels_last)};
          f(run, of, 0.0,
            GroupNormDoubleBackward{of.samples(grad_grad_x), of.param(grad_grad_weight), of.param(grad_grad_bias),
                                    of.samples(grad_y), of.samples(x), of.param(weight), of.known(mean),
                                    of.known(rstd), of.wanted_results(grad_grad_y), of.results(grad_x),
                                    of.param_grad(grad_weight)});
        });
}

}  // namespace wgk
