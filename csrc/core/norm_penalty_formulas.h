// The penalty of a norm, and the scales of its derivatives, for every processor.
#pragma once

#include "norm_penalty.h"

namespace wgk {

WGK_HOST_DEVICE inline double excess(const NormPenalty& p, double norm) {
  const double e = norm - p.target;
  return p.one_sided && e < 0 ? 0.0 : e;
}

// What the reduction and the weight do to one sample's part.
WGK_HOST_DEVICE inline double factor(const NormPenalty& p, int64_t B) {
  return p.reduction == Reduction::mean ? p.weight / static_cast<double>(B) : p.weight;
}

// The penalty from the sum of the squared excesses; 0 / 0 for the mean over no samples, as torch has it.
WGK_HOST_DEVICE inline double reduced(const NormPenalty& p, int64_t B, double sum) {
  return p.weight * (p.reduction == Reduction::mean ? sum / static_cast<double>(B) : sum);
}

// With phi(n) = (n - target)^2: phi'(n) / n, by which a gradient is scaled to give the first derivative.
// At n = 0 that derivative is 0; for target 0, where phi is |g|^2, the scale is 2 everywhere.
WGK_HOST_DEVICE inline double first_scale(const NormPenalty& p, double norm) {
  if (p.target == 0) {
    return 2;
  }
  return norm == 0 ? 0 : 2 * excess(p, norm) / norm;
}

// (phi'(n) / n)' / n * dot: by which a gradient is scaled for its part in the second derivative along a direction
// whose product with the gradient is dot. Divided in steps: norm^2 may underflow where the quotient does not overflow.
WGK_HOST_DEVICE inline double second_scale(const NormPenalty& p, double norm, double dot) {
  if (norm == 0 || (p.one_sided && norm <= p.target)) {
    return 0;
  }
  return dot / norm * (2 * p.target / norm) / norm;
}

}  // namespace wgk
