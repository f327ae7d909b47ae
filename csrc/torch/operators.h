// The operators that library.cpp registers: on CPU tensors and, in builds with CUDA, on CUDA tensors.
#pragma once

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "adapter.h"

namespace wgk::operators {

std::string cpu_instruction_set();

void clip_weights_(const std::vector<Tensor>& params, double low, double high);

Tensor bias_leaky_relu(Tensor x, std::optional<Tensor> bias, double negative_slope, double gain,
                       std::optional<double> clamp);
std::tuple<Tensor, Tensor> bias_leaky_relu_backward(Tensor grad_y, Tensor y, double negative_slope, double gain,
                                                    std::optional<double> clamp, bool needs_bias);
Tensor bias_leaky_relu_double_backward(Tensor grad_grad_x, std::optional<Tensor> grad_grad_bias, Tensor y,
                                       double negative_slope, double gain, std::optional<double> clamp);

Tensor interpolate(Tensor real, Tensor fake, Tensor mix);

std::tuple<Tensor, Tensor, Tensor, std::vector<Tensor>, std::vector<Tensor>> mlp_critic_loss(
    Tensor mixed, std::optional<Tensor> real, std::optional<Tensor> fake, std::vector<Tensor> weights,
    std::vector<Tensor> biases, std::vector<double> slopes, double target, bool one_sided, int64_t reduction,
    double weight, bool needs_grads);

std::tuple<Tensor, Tensor> norm_penalty(Tensor grad, double target, bool one_sided, int64_t reduction, double weight);
std::tuple<Tensor, Tensor, Tensor> norm_penalty_with_grad(Tensor grad, double target, bool one_sided, int64_t reduction,
                                                          double weight);
Tensor norm_penalty_backward(Tensor grad_value, Tensor grad, Tensor norms, double target, bool one_sided,
                             int64_t reduction, double weight);
std::tuple<Tensor, Tensor> norm_penalty_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor grad,
                                                        Tensor norms, double target, bool one_sided,
                                                        int64_t reduction, double weight);

Tensor kernel_matvec(Tensor x, Tensor y, Tensor v, Tensor weights, Tensor params, std::vector<int64_t> kinds,
                     std::vector<double> shapes, bool allow_tf32, int64_t term, int64_t begin, int64_t end,
                     bool diagonal);

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor> kernel_sums(Tensor x, Tensor y, Tensor weights, Tensor params,
                                                               std::vector<int64_t> kinds,
                                                               std::vector<double> shapes, bool allow_tf32,
                                                               int64_t begin, int64_t end, bool diagonal,
                                                               int64_t needs);
std::tuple<Tensor, Tensor, Tensor> kernel_sums_backward(Tensor grad_sums, Tensor x, Tensor y, Tensor params,
                                                        std::vector<int64_t> kinds, std::vector<double> shapes,
                                                        bool allow_tf32, int64_t begin, int64_t end, bool diagonal,
                                                        int64_t needs);
std::tuple<Tensor, Tensor, Tensor, Tensor> kernel_sums_double_backward(
    std::optional<Tensor> grad_grad_x, std::optional<Tensor> grad_grad_y, std::optional<Tensor> grad_grad_params,
    Tensor grad_sums, Tensor x, Tensor y, Tensor params, std::vector<int64_t> kinds, std::vector<double> shapes,
    bool allow_tf32, int64_t begin, int64_t end, bool diagonal, int64_t needs);

void rmsprop_clip_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                   const std::vector<Tensor>& square_avgs, const std::vector<Tensor>& momentum_buffers,
                   const std::vector<Tensor>& grad_avgs, const std::vector<Tensor>& steps, std::optional<Tensor> stats,
                   std::optional<Tensor> lr_tensor, std::optional<Tensor> grad_scale, std::optional<Tensor> found_inf,
                   double lr, double alpha, double eps, double weight_decay, double momentum, bool maximize,
                   double low, double high);

}  // namespace wgk::operators
