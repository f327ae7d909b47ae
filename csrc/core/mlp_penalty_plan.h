// How mlp_penalty lays out its work: samples in groups of `width`, which is one or two vectors.
//
// A panel [features, width] holds one group's numbers of one layer, so that a weight is read where it is and multiplied
// by a vector of samples. Sums over samples want the tangents the other way round: a tile [width, columns] holds a
// whole number of vectors of features for each sample of the group.
#pragma once

#include <cstdint>

#include "norm_penalty.h"

namespace wgk {

template <class T>
struct MlpStep {
  int64_t in, out;
  const T* weight;  // [out, in]
  const T* bias;    // [out], or null
  T slope;
  T* grad_weight;   // [out, in]
  // Where its numbers are: the mask of z > 0 among a thread's masks, [out, width]; among what a group keeps, the
  // adjoint of z, [out, width], and the tangent of its input, tiles of [width, columns].
  int64_t mask, delta, tangent;

  bool bends() const { return slope != T{1}; }
};

template <class T>
struct MlpPlan {
  NormPenalty penalty;
  int64_t B, depth;
  const MlpStep<T>* steps;
  const T* x;                       // [B, D]
  double* norms;                    // [B]
  T* scores;                        // [B, K]
  bool needs_grads;
  int64_t width, columns;           // of panels and tiles
  int64_t widest;                   // features of the widest layer
  int64_t kept_size, masks_size;    // elements of one group
  T* kept;                          // [groups, kept_size]; without derivatives not there

  int64_t groups() const { return (B + width - 1) / width; }
};

}  // namespace wgk
