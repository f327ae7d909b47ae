// Which C++ function serves which operator. The schemas are in wgan_kernels/ops/_schemas.py.
#include "operators.h"

namespace wgk {

std::string cpu_instruction_set() { return isa_name(cpu_isa()); }

}  // namespace wgk

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CompositeExplicitAutograd, library) {
  library.impl("cpu_instruction_set", TORCH_BOX(&wgk::cpu_instruction_set));
}

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, library) {
  library.impl("clip_weights_", TORCH_BOX(&wgk::clip_weights_cpu));
  library.impl("interpolate", TORCH_BOX(&wgk::interpolate_cpu));
  library.impl("kernel_matvec", TORCH_BOX(&wgk::kernel_matvec_cpu));
  library.impl("kernel_sums", TORCH_BOX(&wgk::kernel_sums_cpu));
  library.impl("kernel_sums_backward", TORCH_BOX(&wgk::kernel_sums_backward_cpu));
  library.impl("kernel_sums_double_backward", TORCH_BOX(&wgk::kernel_sums_double_backward_cpu));
  library.impl("norm_penalty", TORCH_BOX(&wgk::norm_penalty_cpu));
  library.impl("norm_penalty_backward", TORCH_BOX(&wgk::norm_penalty_backward_cpu));
  library.impl("norm_penalty_double_backward", TORCH_BOX(&wgk::norm_penalty_double_backward_cpu));
  library.impl("norm_penalty_with_grad", TORCH_BOX(&wgk::norm_penalty_with_grad_cpu));
}
