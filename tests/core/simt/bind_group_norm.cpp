#include "../group_norm_arrays.h"
#include "binding.h"

namespace wgk {
namespace {

struct OnDevice {
  void operator()(const Run& run, const NormArrays& of, double eps, const GroupNormForward& at) const {
    const Workspace workspace(group_norm_cuda_workspace(of.norm));
    launch(run, [&] { return group_norm_cuda(nullptr, of.dtype, of.norm, eps, at, workspace.get()); });
  }
  void operator()(const Run& run, const NormArrays& of, double, const GroupNormBackward& at) const {
    const Workspace workspace(group_norm_cuda_workspace(of.norm));
    launch(run, [&] { return group_norm_backward_cuda(nullptr, of.dtype, of.norm, at, workspace.get()); });
  }
  void operator()(const Run& run, const NormArrays& of, double, const GroupNormDoubleBackward& at) const {
    const Workspace workspace(group_norm_cuda_workspace(of.norm));
    launch(run, [&] { return group_norm_double_backward_cuda(nullptr, of.dtype, of.norm, at, workspace.get()); });
  }
};

const Binding bind_group_norm([](py::module_& m) { def_group_norm<Run>(m, OnDevice{}); });

}  // namespace
}  // namespace wgk
