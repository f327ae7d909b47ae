// Which C++ function serves which operator. The schemas are in wgan_kernels/ops/_schemas.py.
#include "operators.h"

namespace wgk::operators {
namespace {

// One function for every device: each looks at the device of its tensors (on_device_of).
template <class Library>
void implement(Library& library) {
  library.impl("bias_leaky_relu", TORCH_BOX(&bias_leaky_relu));
  library.impl("bias_leaky_relu_backward", TORCH_BOX(&bias_leaky_relu_backward));
  library.impl("bias_leaky_relu_double_backward", TORCH_BOX(&bias_leaky_relu_double_backward));
  library.impl("clip_weights_", TORCH_BOX(&clip_weights_));
  library.impl("group_norm", TORCH_BOX(&group_norm));
  library.impl("group_norm_backward", TORCH_BOX(&group_norm_backward));
  library.impl("group_norm_double_backward", TORCH_BOX(&group_norm_double_backward));
  library.impl("interpolate", TORCH_BOX(&interpolate));
  library.impl("kernel_matvec", TORCH_BOX(&kernel_matvec));
  library.impl("kernel_sums", TORCH_BOX(&kernel_sums));
  library.impl("kernel_sums_backward", TORCH_BOX(&kernel_sums_backward));
  library.impl("kernel_sums_double_backward", TORCH_BOX(&kernel_sums_double_backward));
  library.impl("minibatch_discrimination", TORCH_BOX(&minibatch_discrimination));
  library.impl("minibatch_discrimination_backward", TORCH_BOX(&minibatch_discrimination_backward));
  library.impl("minibatch_discrimination_double_backward", TORCH_BOX(&minibatch_discrimination_double_backward));
  library.impl("minibatch_stddev", TORCH_BOX(&minibatch_stddev));
  library.impl("minibatch_stddev_backward", TORCH_BOX(&minibatch_stddev_backward));
  library.impl("minibatch_stddev_double_backward", TORCH_BOX(&minibatch_stddev_double_backward));
  library.impl("mlp_critic_loss", TORCH_BOX(&mlp_critic_loss));
  library.impl("norm_penalty", TORCH_BOX(&norm_penalty));
  library.impl("norm_penalty_backward", TORCH_BOX(&norm_penalty_backward));
  library.impl("norm_penalty_double_backward", TORCH_BOX(&norm_penalty_double_backward));
  library.impl("rmsprop_clip_", TORCH_BOX(&rmsprop_clip_));
}

}  // namespace

std::string cpu_instruction_set() { return isa_name(cpu_isa()); }

}  // namespace wgk::operators

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CompositeExplicitAutograd, library) {
  library.impl("cpu_instruction_set", TORCH_BOX(&wgk::operators::cpu_instruction_set));
}

STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CPU, library) {
  wgk::operators::implement(library);
  library.impl("norm_penalty_with_grad", TORCH_BOX(&wgk::operators::norm_penalty_with_grad));
}

#ifdef WGK_CUDA
STABLE_TORCH_LIBRARY_IMPL(wgan_kernels, CUDA, library) { wgk::operators::implement(library); }
#endif
