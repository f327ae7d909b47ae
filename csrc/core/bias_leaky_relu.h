// y = clamp(gain * leaky_relu(x + bias, negative_slope), -clamp, clamp), and its derivatives by y alone: it is positive
// where x + bias is, and at a bound where it was clamped, as negative_slope and gain are not negative.
// x, y and gradients by them: [B, C, S] of dtype, dense. bias and gradients by it: [C], double for float64, else float.
#pragma once

#include "common.h"

namespace wgk {

struct BiasLeakyRelu {
  double negative_slope;
  double gain;
  double clamp;  // rounded to the dtype; infinity for none
};

// bias: null for none.
void bias_leaky_relu(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S,
                     const void* x, const void* bias, void* y);

// grad_x = grad_y * dy/dx; grad_bias: its sum over all but the channels, or null.
void bias_leaky_relu_backward(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                              int64_t S, const void* grad_y, const void* y, void* grad_x, void* grad_bias);

// grad_grad_y = (grad_grad_x + grad_grad_bias) * dy/dx; grad_grad_bias: null for none.
void bias_leaky_relu_double_backward(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B,
                                     int64_t C, int64_t S, const void* grad_grad_x, const void* grad_grad_bias,
                                     const void* y, void* grad_grad_y);

// The same of device memory, enqueued on the stream. workspace: as many bytes, which may be none; of any content.
CudaStatus bias_leaky_relu_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                                int64_t S, const void* x, const void* bias, void* y);

int64_t bias_leaky_relu_backward_cuda_workspace(int64_t B, int64_t C, int64_t S);

CudaStatus bias_leaky_relu_backward_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                                         int64_t S, const void* grad_y, const void* y, void* grad_x, void* grad_bias,
                                         void* workspace);

CudaStatus bias_leaky_relu_double_backward_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B,
                                                int64_t C, int64_t S, const void* grad_grad_x,
                                                const void* grad_grad_bias, const void* y, void* grad_grad_y);

}  // namespace wgk
