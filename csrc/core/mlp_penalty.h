// The gradient penalty of a fully connected critic and its derivatives by the weights, in closed form.
//
// Layers z_l = W_l h_{l-1} + b_l, h_l = phi_l(z_l), phi_l(z) = z where z > 0 and slope_l * z elsewhere; the score of a
// sample is the sum of its last layer, g its derivative by the sample. With v = dP/dg held fixed, dP/dW_l is the sum
// over samples of delta_l (outer) t_{l-1}, where delta is the adjoint sweep that gives g, and t the tangent sweep that
// starts from v; dP/db_l is 0, for the slopes are constant.
#pragma once

#include "norm_penalty.h"

namespace wgk {

struct MlpLayer {
  int64_t in, out;
  const void* weight;  // [out, in]
  const void* bias;    // [out], or null
  double slope;        // 0: ReLU, 1: identity
  void* grad_weight;   // [out, in]; null, in every layer, where no derivatives are wanted
};

// x: [B, D] with D = layers[0].in. value: [1]. norms: [B]. scores: [B, K] with K = layers[depth - 1].out. All but the
// norms are of dtype, float32 or float64. The reduction is not none; depth is at least 1.
void mlp_penalty(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, const MlpLayer* layers,
                 int64_t depth, const void* x, void* value, double* norms, void* scores);

}  // namespace wgk
