// The operators that library.cpp registers.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "adapter.h"

namespace wgk {

std::string cpu_instruction_set();

void clip_weights_cpu(const std::vector<Tensor>& params, double low, double high);

Tensor interpolate_cpu(Tensor real, Tensor fake, Tensor mix);

std::tuple<Tensor, Tensor> norm_penalty_cpu(Tensor grad, double target, bool one_sided, int64_t reduction,
                                            double weight);
Tensor norm_penalty_backward_cpu(Tensor grad_value, Tensor grad, Tensor norms, double target, bool one_sided,
                                 int64_t reduction, double weight);
std::tuple<Tensor, Tensor> norm_penalty_double_backward_cpu(Tensor grad_grad_x, Tensor grad_value, Tensor grad,
                                                            Tensor norms, double target, bool one_sided,
                                                            int64_t reduction, double weight);

}  // namespace wgk
