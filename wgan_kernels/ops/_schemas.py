"""Every operator schema of the library, on one page, so that it stands without the compiled library.

Letters: B batch, D features (all non-batch dimensions of a sample taken together); N and M points, C components of a
kernel, Q parameters of each, P columns.
reduction: 0 none, 1 mean, 2 sum.
"""

from __future__ import annotations

import torch

LIBRARY = torch.library.Library("wgan_kernels", "FRAGMENT")

_PENALTY = "float target, bool one_sided, int reduction, float weight"
# shapes: the fixed numbers of the kernel functions; allow_tf32: of matrix products of float32 points on a GPU; rows
# [begin, end) of the stacked points [x; y], end -1 for all; needs: 1 grad_x + 2 grad_y + 4 grad_params.
_KERNEL = "Tensor params, int[] kinds, float[] shapes, bool allow_tf32, int begin, int end, bool diagonal, int needs"

_SCHEMAS = [
    # The instruction set the CPU kernels run on.
    "cpu_instruction_set() -> str",
    # x: [B, C, ...]; bias: [C]; clamp: none for no bound -> [B, C, ...]
    "bias_leaky_relu(Tensor x, Tensor? bias, float negative_slope, float gain, float? clamp) -> Tensor",
    # grad_y, y: [B, C, ...] -> grad_x: [B, C, ...]; grad_bias: [C], as wide as float32 at least, or empty
    "bias_leaky_relu_backward(Tensor grad_y, Tensor y, float negative_slope, float gain, float? clamp, "
    "bool needs_bias) -> (Tensor grad_x, Tensor grad_bias)",
    # grad_grad_x, y: [B, C, ...]; grad_grad_bias: [C] -> grad_grad_y: [B, C, ...]
    "bias_leaky_relu_double_backward(Tensor grad_grad_x, Tensor? grad_grad_bias, Tensor y, float negative_slope, "
    "float gain, float? clamp) -> Tensor",
    # params: any shapes and dtypes, one device.
    "clip_weights_(Tensor(a!)[] params, float low, float high) -> ()",
    # x: [B, C, ...], or with layer_dims [..., C...], the last of them; weight, bias: [C] or [C...], of the dtype of x,
    # or for half floats float32 -> y: as x; mean, rstd: [B, groups], float32 or float64
    "group_norm(Tensor x, Tensor? weight, Tensor? bias, int groups, int layer_dims, float eps) "
    "-> (Tensor y, Tensor mean, Tensor rstd)",
    # grad_y: as x; of bias the shape and dtype alone -> gradients, empty where there is no such parameter or, without
    # needs_params, for both
    "group_norm_backward(Tensor grad_y, Tensor x, Tensor? weight, Tensor? bias, Tensor mean, Tensor rstd, int groups, "
    "int layer_dims, bool needs_params) -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    # needs_y: whether grad_grad_y is to be computed; empty otherwise
    "group_norm_double_backward(Tensor? grad_grad_x, Tensor? grad_grad_weight, Tensor? grad_grad_bias, Tensor grad_y, "
    "Tensor x, Tensor? weight, Tensor mean, Tensor rstd, int groups, int layer_dims, bool needs_y, bool needs_params) "
    "-> (Tensor grad_grad_y, Tensor grad_x, Tensor grad_weight)",
    # real, fake: [B, D...]; mix: [B] -> [B, D...]
    "interpolate(Tensor real, Tensor fake, Tensor mix) -> Tensor",
    # m: [B, F, K]; rows [begin, end) of o, end -1 for all -> o: [end - begin, F]
    "minibatch_discrimination(Tensor m, int begin, int end) -> Tensor",
    # grad_o: as o -> grad_m: [B, F, K]
    "minibatch_discrimination_backward(Tensor grad_o, Tensor m, int begin, int end) -> Tensor",
    # grad_grad_m: [B, F, K] -> grad_grad_o: as o; grad_m: [B, F, K]
    "minibatch_discrimination_double_backward(Tensor grad_grad_m, Tensor grad_o, Tensor m, int begin, int end) "
    "-> (Tensor grad_grad_o, Tensor grad_m)",
    # x: [B, C, ...]; group_size divides B, num_channels divides C -> value: [B / group_size, num_channels]
    "minibatch_stddev(Tensor x, int group_size, int num_channels) -> Tensor",
    # grad_value: as value -> grad_x: [B, C, ...]
    "minibatch_stddev_backward(Tensor grad_value, Tensor x, int group_size, int num_channels) -> Tensor",
    # grad_grad_x: [B, C, ...] -> grad_grad_value: as value; grad_x: [B, C, ...]
    "minibatch_stddev_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor x, int group_size, "
    "int num_channels) -> (Tensor grad_grad_value, Tensor grad_x)",
    # mixed, real, fake: [B, D], or neither real nor fake; weights: [out, in] of each layer; biases: [out], or empty for
    # none -> penalty, wasserstein: []; norms: [B] float64; of penalty - wasserstein grad_weights: [out, in] and
    # grad_biases: [out], or empty for none; no tensors without needs_grads, and no grad_biases without real and fake.
    "mlp_critic_loss(Tensor mixed, Tensor? real, Tensor? fake, Tensor[] weights, Tensor[] biases, float[] slopes, "
    f"{_PENALTY}, bool needs_grads) -> (Tensor penalty, Tensor wasserstein, Tensor norms, Tensor[] grad_weights, "
    "Tensor[] grad_biases)",
    # grad: [B, D...] -> value: [] or [B]; norms: [B] float64
    f"norm_penalty(Tensor grad, {_PENALTY}) -> (Tensor value, Tensor norms)",
    # The same, and grad_x for a grad_value of 1.
    f"norm_penalty_with_grad(Tensor grad, {_PENALTY}) -> (Tensor value, Tensor norms, Tensor grad_x)",
    # grad_value: [] or [B] -> grad_x: [B, D...]
    f"norm_penalty_backward(Tensor grad_value, Tensor grad, Tensor norms, {_PENALTY}) -> Tensor",
    # grad_grad_x: [B, D...] -> grad_grad_value: [] or [B]; grad_x: [B, D...]
    "norm_penalty_double_backward(Tensor grad_grad_x, Tensor grad_value, Tensor grad, Tensor norms, "
    f"{_PENALTY}) -> (Tensor grad_grad_value, Tensor grad_x)",
    # x: [N, D] or [B, N, D]; y: [M, D] or [B, M, D]; weights: [3, C] or [B, 3, C] float64; params: [C, Q] float64
    # -> value = sum(weights * sums): [] or [B]; sums (xx, yy, xy): [3, C] or [B, 3, C] float64; gradients of value, in
    # float32 at least; those that `needs` does not name are empty, as below.
    f"kernel_sums(Tensor x, Tensor y, Tensor weights, {_KERNEL}) "
    "-> (Tensor value, Tensor sums, Tensor grad_x, Tensor grad_y, Tensor grad_params)",
    # grad_sums: as sums
    f"kernel_sums_backward(Tensor grad_sums, Tensor x, Tensor y, {_KERNEL}) "
    "-> (Tensor grad_x, Tensor grad_y, Tensor grad_params)",
    "kernel_sums_double_backward(Tensor? grad_grad_x, Tensor? grad_grad_y, Tensor? grad_grad_params, Tensor grad_sums, "
    f"Tensor x, Tensor y, {_KERNEL}) "
    "-> (Tensor grad_grad_sums, Tensor grad_x, Tensor grad_y, Tensor grad_params)",
    # x: [N, D] or [B, N, D]; y: [M, D] or [B, M, D]; v: [M, P] or [B, M, P], as wide as float32 at least; weights: [C];
    # term: k itself, or one of its derivatives; begin, end: rows of x -> [end - begin, P] or [B, end - begin, P]
    "kernel_matvec(Tensor x, Tensor y, Tensor v, Tensor weights, Tensor params, int[] kinds, float[] shapes, "
    "bool allow_tf32, int term, int begin, int end, bool diagonal) -> Tensor",
    # Of each parameter, of any shape and dtype, all on one device: its gradient and states, side by side; no buffers
    # without momentum, no grad_avgs where not centered; no grads and states at all: clipped alone. steps: [] each.
    # stats: [2] int64, to which how many weights are at a bound is added, and the bits of the largest |w| in float64.
    # lr_tensor, in place of lr, grad_scale and found_inf: one number each.
    "rmsprop_clip_(Tensor(a!)[] params, Tensor[] grads, Tensor(b!)[] square_avgs, Tensor(c!)[] momentum_buffers"
    ", Tensor(d!)[] grad_avgs, Tensor(e!)[] steps, Tensor(f!)? stats, Tensor? lr_tensor, Tensor? grad_scale"
    ", Tensor? found_inf, float lr, float alpha, float eps, float weight_decay, float momentum, bool maximize"
    ", float low, float high) -> ()",
]

for _schema in _SCHEMAS:
    LIBRARY.define(_schema)
