// What a fully connected critic of WGAN-GP minimises, and its derivatives by weights and biases, without a graph.
//
// Layers z_l = W_l h_{l-1} + b_l, h_l = phi_l(z_l), phi_l(z) = z where z > 0 and slope_l * z elsewhere; the score of a
// sample is the sum of its last layer. The loss is penalty - wasserstein, where
//   wasserstein = mean D(real) - mean D(fake), over samples and parts of the score, and
//   penalty is that of the norms of g, the derivative of the score by a mixed sample.
// A sample's part in the derivative by W_l is an outer product of its adjoint delta_l: for the wasserstein part with
// h_{l-1}, the usual backward pass; for the penalty with t_{l-1}, the tangent sweep that starts from v = dP/dg, while
// delta is the sweep that gave g. The penalty has no derivative by the biases, for the slopes are constant.
#pragma once

#include <algorithm>

#include "norm_penalty.h"

namespace wgk {

struct MlpLayer {
  int64_t in, out;
  const void* weight;  // [out, in]
  const void* bias;    // [out], or null
  double slope;        // 0: ReLU, 1: identity
  void* grad_weight;   // [out, in]; null, in every layer, where no derivatives are wanted
  void* grad_bias;     // [out], of the wasserstein part; null where it is not wanted
};

// Of any layer: one without elements may be null too.
inline bool wants_derivatives(const MlpLayer* layers, int64_t depth) {
  const auto wanted = [](const MlpLayer& layer) { return layer.grad_weight != nullptr || layer.grad_bias != nullptr; };
  return std::any_of(layers, layers + depth, wanted);
}

// [B, D] each, with D = layers[0].in.
struct CriticSamples {
  const void *mixed, *real, *fake;
  bool judged;  // whether real and fake are there; without them the loss is the penalty
};

struct CriticLoss {
  void *penalty, *wasserstein;  // [1]; wasserstein is 0 without real and fake
  double* norms;                // [B]
};

// All but the norms are of dtype, float32 or float64. The reduction is not none; depth is at least 1.
void mlp_critic_loss(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B,
                     const MlpLayer* layers, int64_t depth, const CriticSamples& samples, const CriticLoss& loss);

// The same of device memory, enqueued on the stream; layers themselves are host memory, and more of them than fit into
// the arguments of a kernel are refused. workspace: as many bytes, of any content; judged: there are real and fake
// ones.
//
// Two launches, whatever the depth: the sweeps, a block for a group of S samples of one kind (4, or 8 of large
// batches), and the sums over samples, a block for 64 x 32 derivatives. With W weights in all layers, a group of mixed
// samples reads them three times (forward, back, tangent), others twice, for S W multiply-adds each time; what is kept
// of a sample, in + out numbers a layer, is written once and read by a row and a column of tiles, for W multiply-adds.
// By arithmetic, not run on hardware: for 64-256-256-256-1 and 3 x 64 samples in float32 (W = 147,712: 591 KB) 48
// groups read 112 x 591 KB = 66 MB in the first launch and make 66 M multiply-adds; 80 tiles read 6 MB and make 28 M
// in the second. All of it is in the L2 cache. A multiprocessor of an H100 has one group and takes 64 bytes a clock
// from there and 128 multiply-adds: 9,200 clocks a sweep for the weights, 4,600 for the products, so that its share of
// the cache's bandwidth is the limit, 28,000 clocks for a mixed group, and groups of less than 4 would gain nothing;
// of 8, both take as long. With more groups than multiprocessors they share what the cache gives to all, and products
// of matrices over the whole batch would be better.
constexpr int64_t kMostMlpLayersOnCuda = 32;

int64_t mlp_critic_loss_cuda_workspace(DType dtype, int64_t B, const MlpLayer* layers, int64_t depth, bool judged);

CudaStatus mlp_critic_loss_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B,
                                const MlpLayer* layers, int64_t depth, const CriticSamples& samples,
                                const CriticLoss& loss, void* workspace);

}  // namespace wgk
