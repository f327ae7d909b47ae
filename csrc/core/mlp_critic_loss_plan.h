// How mlp_critic_loss lays out its work: samples of one kind in groups of `width`, which is one or two vectors.
//
// A panel [features, width] holds one group's numbers of one layer, so that a weight is read where it is and multiplied
// by a vector of samples. Sums over samples want what the adjoints are multiplied with the other way round: a tile
// [width, columns] holds a whole number of vectors of features for each sample of the group.
#pragma once

#include <algorithm>
#include <cstdint>

#include "norm_penalty.h"

namespace wgk {

enum class SampleKind { mixed, real, fake };

template <class T>
struct MlpStep {
  int64_t in, out;
  const T* weight;  // [out, in]
  const T* bias;    // [out], or null
  T slope;
  T* grad_weight;   // [out, in]
  T* grad_bias;     // [out], or null
  // Where its numbers are: the mask of z > 0 among a thread's masks, [out, width]; among what a group keeps, the
  // adjoint of z, [out, width], and its factor in the weights' derivatives, tiles of [width, columns]: the input of
  // the layer, or for mixed samples the tangent of it.
  int64_t mask, delta, factor;

  bool bends() const { return slope != T{1}; }
};

template <class T>
struct MlpPlan {
  NormPenalty penalty;
  int64_t B, depth;
  int64_t kinds;                    // 1: mixed samples alone, 3: real and fake ones too
  const MlpStep<T>* steps;
  const T* samples[3];              // [B, D] of each kind
  double* norms;                    // [B]
  double* score_sums;               // [groups], of real and fake ones
  bool needs_grads;
  int64_t width, columns;           // of panels and tiles
  int64_t widest;                   // features of the widest layer
  int64_t kept_size, masks_size;    // elements of one group
  T* kept;                          // [groups, kept_size]; without derivatives not there

  // The kinds take turns, for mixed samples are more work and threads take groups in a row.
  int64_t groups() const { return kinds * ((B + width - 1) / width); }
  SampleKind kind(int64_t group) const { return static_cast<SampleKind>(group % kinds); }
  int64_t first(int64_t group) const { return group / kinds * width; }
  int64_t count(int64_t group) const { return std::min(width, B - first(group)); }
  // The derivative of the loss by a sample's score.
  double seed(SampleKind kind) const {
    const double mean = 1 / (static_cast<double>(B) * static_cast<double>(steps[depth - 1].out));
    return kind == SampleKind::mixed ? 1 : kind == SampleKind::real ? -mean : mean;
  }
};

}  // namespace wgk
