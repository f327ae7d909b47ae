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

std::tuple<Tensor, Tensor, Tensor> group_norm(Tensor x, std::optional<Tensor> weight, std::optional<Tensor> bias,
                                              int64_t groups, int64_t layer_dims, double eps);
std::tuple<Tensor, Tensor, Tensor> group_norm_backward(Tensor grad_y, Tensor x, std::optional<Tensor> weight,
                                                       std::optional<Tensor> bias, Tensor mean, Tensor rstd,
                                                       int64_t groups, int64_t layer_dims, bool needs_params);
std::tuple<Tensor, Tensor, Tensor> group_norm_double_backward(
    std::optional<Tensor> grad_grad_x, std::optional<Tensor> grad_grad_weight, std::optional<Tensor> grad_grad_bias,
    Tensor grad_y, Tensor x, std::optional<Tensor> weight, Tensor mean, Tensor rstd, int64_t groups,
    int64_t layer_dims, bool needs_y, bool needs_params);

Tensor interpolate(Tensor real, Tensor fake, Tensor mix);

Tensor minibatch_discrimination(Tensor m, int64_t begin, int64_t end);
Tensor minibatch_discrimination_backward(Tensor grad_o, Tensor m, int64_t begin, int64_t end);
std::tuple<Tensor, Tensor> minibatch_discrimination_double_backward(Tensor grad_grad_m, Tensor grad_o, Tensor m,
                                                                    int64_t begin, int64_t end);

Tensor minibatch_stddev(Tensor x, int64_t group_size, int64_t num_channels);
Tensor minibatch_stddev_backward(Tensor grad_value, Tensor x, int64_t group_size, int64_t num_channels);
std::tuple<Tensor, Tensor> minibatch_stddev_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor x,
                                                            int64_t group_size, int64_t num_channels);

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
