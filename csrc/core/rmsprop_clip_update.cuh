// What one element becomes in a step of RMSProp and its clip, and what is counted of it.
#pragma once

#include "any_element.cuh"
#include "reduce.cuh"
#include "rmsprop_clip.h"

namespace wgk {

WGK_DEVICE float fused(float a, float b, float c) { return __fmaf_rn(a, b, c); }
WGK_DEVICE double fused(double a, double b, double c) { return __fma_rn(a, b, c); }
WGK_DEVICE float root(float x) { return __fsqrt_rn(x); }
WGK_DEVICE double root(double x) { return sqrt(x); }

// The numbers of a step in the type that T is computed in, with those that are on the device.
template <class T>
struct RmspropRule {
  using W = Wide<T>;
  W minus_lr, alpha, rest, eps, weight_decay, momentum, grad_factor, low, high;
  bool decays, mostly_new;  // mostly_new: averages are computed from their new end, as torch.lerp does

  WGK_DEVICE explicit RmspropRule(const RmspropStep& step)
      : minus_lr(static_cast<W>(-(step.lr_at.at ? load_element(step.lr_at.dtype, step.lr_at.at, 0) : step.lr))),
        alpha(static_cast<W>(step.alpha)), rest(static_cast<W>(1 - step.alpha)), eps(static_cast<W>(step.eps)),
        weight_decay(static_cast<W>(step.weight_decay)), momentum(static_cast<W>(step.momentum)),
        grad_factor(static_cast<W>(step.grad_factor)), low(widen(narrow<T>(static_cast<W>(step.low)))),
        high(widen(narrow<T>(static_cast<W>(step.high)))), decays(step.weight_decay != 0),
        mostly_new(1 - step.alpha >= 0.5) {
    if (step.grad_scale.at != nullptr) {
      grad_factor *= static_cast<float>(1 / load_element(step.grad_scale.dtype, step.grad_scale.at, 0));
    }
  }

  // A NaN, for which both comparisons fail, stays as it is.
  WGK_DEVICE W clip(W w) const {
    w = w < low ? low : w;
    return w > high ? high : w;
  }

  // In the order of roundings of the CPU's kernel.
  template <bool moves, bool centered, bool with_momentum>
  WGK_DEVICE void update(T& param, T grad, T& square_avg, T& momentum_buffer, T& grad_avg) const {
    W w = widen(param);
    if constexpr (moves) {
      W g = multiply(widen(grad), grad_factor);
      g = decays ? fused(w, weight_decay, g) : g;
      const W v = fused(multiply(rest, g), g, multiply(widen(square_avg), alpha));
      square_avg = narrow<T>(v);
      W spread = v;
      if constexpr (centered) {
        W a = widen(grad_avg);
        const W way = add(g, -a);
        a = mostly_new ? add(g, -multiply(way, alpha)) : fused(rest, way, a);
        grad_avg = narrow<T>(a);
        spread = fused(-a, a, v);
        spread = spread < 0 ? W{0} : spread;  // below zero by rounding alone
      }
      const W scale = add(root(spread), eps);
      if constexpr (with_momentum) {
        const W b = add(multiply(widen(momentum_buffer), momentum), g / scale);
        momentum_buffer = narrow<T>(b);
        w = fused(b, minus_lr, w);
      } else {
        w = add(w, multiply(minus_lr, g) / scale);
      }
    }
    param = narrow<T>(clip(w));
  }
};

// How many clipped weights are at a bound, and the largest magnitude: by integers, in whatever order.
template <class T>
struct Clipped {
  const bool wanted;
  int at_bound = 0;
  Wide<T> largest = 0;

  WGK_DEVICE explicit Clipped(bool wanted) : wanted(wanted) {}

  WGK_DEVICE void look(const RmspropRule<T>& rule, T param) {
    if (wanted) {
      const Wide<T> w = widen(param), magnitude = w < 0 ? -w : w;
      at_bound += w <= rule.low || w >= rule.high;
      // A NaN takes the place of any number, and nothing takes its place.
      largest = magnitude > largest || magnitude != magnitude ? magnitude : largest;
    }
  }

  // Of all lanes of a warp, every one of which has to come here.
  WGK_DEVICE void add_to(unsigned long long* stats) const {
    if (!wanted) {
      return;
    }
    // The bits of magnitudes, a NaN's too, are ordered as the numbers are.
    unsigned long long bits = static_cast<unsigned long long>(__double_as_longlong(largest)) & 0x7fffffffffffffffull;
#pragma unroll
    for (int step = 16; step > 0; step /= 2) {
      bits = max(bits, __shfl_xor_sync(kAllLanes, bits, step));
    }
    const int total = warp_sum(at_bound);
    if (threadIdx.x % 32 == 0) {
      atomicAdd(stats, static_cast<unsigned long long>(total));
      atomicMax(stats + 1, bits);
    }
  }
};

}  // namespace wgk
