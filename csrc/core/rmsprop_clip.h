// One step of RMSProp and the clipping after it, in place and in one pass over memory, for a list of parameters.
#pragma once

#include "common.h"

namespace wgk {

// A number that lies beside the parameters, on their device, or null.
struct RmspropNumber {
  DType dtype;  // float64 or float32
  void* at;
};

// A parameter and what belongs to it: `count` elements each, in one order and without gaps. Without a gradient the
// parameter is clipped alone.
struct RmspropTensor {
  DType dtype;
  int64_t count;
  void* param;
  const void* grad;
  void* square_avg;
  void* momentum_buffer;  // null without momentum
  void* grad_avg;         // null where the step is not centered
  RmspropNumber step;     // how many there were: one is added
};

struct RmspropStep {
  double lr, alpha, eps, weight_decay, momentum;
  double grad_factor;                       // of every gradient: -1 to maximize
  double low, high;                         // rounded to each dtype first; infinite where nothing is clipped
  RmspropNumber lr_at;                      // in place of lr
  RmspropNumber grad_scale;                 // of the loss: gradients are divided by it
  RmspropNumber found_inf;                  // where it is not 0, nothing is done
};

// Half-width floats are computed in float32 and rounded where they are stored. stats, null where nobody asks: to the
// first is added how many weights are at a bound; the second, the bits of a float64, becomes the largest magnitude.
void rmsprop_clip(Isa isa, ParallelFor run, const RmspropTensor* tensors, int64_t count, const RmspropStep& step,
                  int64_t* stats);

// The same of device memory, in as few launches as their arguments allow: 60 parameters at most in each. All have the
// same states, or none of them a gradient.
CudaStatus rmsprop_clip_cuda(CudaStream stream, const RmspropTensor* tensors, int64_t count, const RmspropStep& step,
                             int64_t* stats);

}  // namespace wgk
