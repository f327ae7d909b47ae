// The passes of group_norm over its groups: a group is a block's, or where groups are few and long several blocks',
// each with a part of it. Sums are kept in float64, in an order that depends on the sizes alone.
#pragma once

#include <climits>

#include "group_norm.h"
#include "group_norm_formulas.h"
#include "reduce.cuh"

namespace wgk {

constexpr int kNormThreads = 256;
constexpr int kNormSums = 8;       // at most, of a group
constexpr int kNormMeans = 3;      // of a group, kept for the sums by channel: shift, U, UX
constexpr int kNormPart = 1 << 14;  // elements that a group has for every block that it gets, at least
constexpr int64_t kManyGroups = 512;  // which fill a GPU by themselves

enum class NormPass { forward, backward, tangent };

// Whether a launch takes the sums of groups, uses them, or does both, a block each.
enum class NormStage { both, sums, results };

template <class T>
struct GroupNormArguments {
  GroupNorm norm;
  double eps;
  const T *x, *g, *u;
  const Wide<T>*weight, *bias, *p, *q, *mean, *rstd;
  T *y, *grad_x;
  Wide<T>*mean_out, *rstd_out;
  double *sums, *means;  // [rows, parts, kNormSums]; [rows, kNormMeans], null where nobody wants them
  int parts, part_size;
  NormStage stage;
};

// Where the elements of a group are, and to which channels they belong. Indices count the group's elements in the
// order of memory.
struct GroupPlace {
  int64_t base, C;
  int first_channel, channels, S;
  bool channels_last;

  WGK_DEVICE GroupPlace(const GroupNorm& norm, int64_t row) {
    const int64_t b = row / norm.G, group = row - b * norm.G;
    channels = static_cast<int>(norm.channels());
    S = static_cast<int>(norm.S);
    C = norm.C;
    first_channel = static_cast<int>(group) * channels;
    channels_last = norm.channels_last;
    base = channels_last ? b * norm.S * C + first_channel : row * norm.group_size();
  }
  WGK_DEVICE int64_t offset(int i) const {
    const int position = channels_last ? i / channels : 0;
    return channels_last ? base + position * C + (i - position * channels) : base + i;
  }
  WGK_DEVICE int channel(int i) const {
    return first_channel + (channels_last ? i % channels : S == 1 ? i : i / S);
  }
};

template <class T>
WGK_DEVICE Wide<T> param_or(const Wide<T>* param, int channel, Wide<T> missing) {
  return param == nullptr ? missing : param[channel];
}

// Adds a thread's terms of elements [begin, end) of a group to sums: in a forward pass d and d^2, d = x - `around`;
// else those of GroupNormSums and GroupNormTangentSums, in their order.
template <class T, int V, NormPass pass>
WGK_DEVICE void add_terms(const GroupNormArguments<T>& args, const GroupPlace& place, Wide<T> around, Wide<T> r,
                          int begin, int end, double (&sums)[kNormSums]) {
  for (int i = begin + static_cast<int>(threadIdx.x) * V; i < end; i += kNormThreads * V) {
    const int64_t at = place.offset(i);
    const auto xs = load_pack<V>(args.x + at);
    auto gs = xs, us = xs;
    if constexpr (pass != NormPass::forward) {
      gs = load_pack<V>(args.g + at);
    }
    if constexpr (pass == NormPass::tangent) {
      us = load_pack<V>(args.u + at);
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const Wide<T> d = widen(xs.get(e)) - around;
      if constexpr (pass == NormPass::forward) {
        sums[0] += d;
        sums[1] += static_cast<double>(d) * d;
      } else {
        const int channel = place.channel(i + e);
        const double xhat = d * r, g = widen(gs.get(e)), a = param_or<T>(args.weight, channel, 1) * g;
        sums[0] += xhat;
        sums[1] += a;
        sums[2] += a * xhat;
        if constexpr (pass == NormPass::tangent) {
          const double u = widen(us.get(e)), pg = param_or<T>(args.p, channel, 0) * g;
          sums[3] += u;
          sums[4] += u * xhat;
          sums[5] += a * u;
          sums[6] += pg;
          sums[7] += pg * xhat;
        }
      }
    }
  }
}

template <class T, int V>
WGK_DEVICE void store_normalised(const GroupNormArguments<T>& args, const GroupPlace& place, int64_t row,
                                 const double* sums, Wide<T> around, int begin, int end) {
  const double n = static_cast<double>(args.norm.group_size()), off = sums[0] / n;
  const double squares = sums[1] - off * sums[0], mean = around + off;
  const double r = 1 / sqrt((squares < 0 ? 0 : squares) / n + args.eps);
  const auto mean_out = static_cast<Wide<T>>(mean), rstd = static_cast<Wide<T>>(r);
  if (begin == 0 && threadIdx.x == 0) {
    args.mean_out[row] = mean_out;
    args.rstd_out[row] = rstd;
  }
  const auto shift = static_cast<Wide<T>>((mean - mean_out) * r);
  for (int i = begin + static_cast<int>(threadIdx.x) * V; i < end; i += kNormThreads * V) {
    const int64_t at = place.offset(i);
    const auto xs = load_pack<V>(args.x + at);
    auto ys = xs;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const int channel = place.channel(i + e);
      const Wide<T> xhat = (widen(xs.get(e)) - mean_out) * rstd - shift;
      ys.set(e, narrow<T>(xhat * param_or<T>(args.weight, channel, 1) + param_or<T>(args.bias, channel, 0)));
    }
    store_pack<V>(args.y + at, ys);
  }
}

template <class T, int V>
WGK_DEVICE void store_gradient(const GroupNormArguments<T>& args, const GroupPlace& place, int64_t row,
                               const double* sums, int begin, int end) {
  using W = Wide<T>;
  const W mean = args.mean[row], r = args.rstd[row];
  const GroupNormFactors of({sums[0], sums[1], sums[2]}, static_cast<double>(args.norm.group_size()), r);
  if (args.means != nullptr && begin == 0 && threadIdx.x == 0) {
    args.means[row * kNormMeans] = of.shift;
  }
  const W shift = static_cast<W>(of.shift), by_x = static_cast<W>(of.by_x), constant = static_cast<W>(of.constant);
  for (int i = begin + static_cast<int>(threadIdx.x) * V; i < end; i += kNormThreads * V) {
    const int64_t at = place.offset(i);
    const auto xs = load_pack<V>(args.x + at), gs = load_pack<V>(args.g + at);
    auto out = xs;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const W xhat = (widen(xs.get(e)) - mean) * r - shift;
      const W a = param_or<T>(args.weight, place.channel(i + e), 1) * widen(gs.get(e));
      out.set(e, narrow<T>(a * r + (xhat * by_x + constant)));
    }
    store_pack<V>(args.grad_x + at, out);
  }
}

template <class T, int V>
WGK_DEVICE void store_tangent(const GroupNormArguments<T>& args, const GroupPlace& place, int64_t row,
                              const double* sums, int begin, int end) {
  using W = Wide<T>;
  const W mean = args.mean[row], r = args.rstd[row];
  const GroupNormTangentFactors of({{sums[0], sums[1], sums[2]}, sums[3], sums[4], sums[5], sums[6], sums[7]},
                                   static_cast<double>(args.norm.group_size()), r);
  if (args.means != nullptr && begin == 0 && threadIdx.x == 0) {
    args.means[row * kNormMeans] = of.shift;
    args.means[row * kNormMeans + 1] = of.U;
    args.means[row * kNormMeans + 2] = of.UX;
  }
  const W shift = static_cast<W>(of.shift), U = static_cast<W>(of.U), UX = static_cast<W>(of.UX);
  const W by_a = static_cast<W>(of.by_a), by_u = static_cast<W>(of.by_u), by_x = static_cast<W>(of.by_x);
  const W constant = static_cast<W>(of.constant);
  for (int i = begin + static_cast<int>(threadIdx.x) * V; i < end; i += kNormThreads * V) {
    const int64_t at = place.offset(i);
    const auto xs = load_pack<V>(args.x + at), gs = load_pack<V>(args.g + at), us = load_pack<V>(args.u + at);
    auto by_y = xs, by_input = xs;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      const int channel = place.channel(i + e);
      const W xhat = (widen(xs.get(e)) - mean) * r - shift, u = widen(us.get(e)), g = widen(gs.get(e));
      const W w = param_or<T>(args.weight, channel, 1), p = param_or<T>(args.p, channel, 0);
      const W along = (u - U - xhat * UX) * r;
      by_y.set(e, narrow<T>(w * along + (p * xhat + param_or<T>(args.q, channel, 0))));
      by_input.set(e, narrow<T>(g * (w * by_a + p * r) + (u * by_u + (xhat * by_x + constant))));
    }
    if (args.y != nullptr) {
      store_pack<V>(args.y + at, by_y);
    }
    store_pack<V>(args.grad_x + at, by_input);
  }
}

template <class T, int V, NormPass pass>
__global__ void __launch_bounds__(kNormThreads, 2) group_norm_kernel(const GroupNormArguments<T> args) {
  constexpr int kSums = pass == NormPass::forward ? 2 : pass == NormPass::backward ? 3 : kNormSums;
  WGK_SHARED(double, totals, kNormSums);
  const int64_t row = blockIdx.x / args.parts;
  const int part = static_cast<int>(blockIdx.x - row * args.parts), begin = part * args.part_size;
  const int n = static_cast<int>(args.norm.group_size()), end = min(n - begin, args.part_size) + begin;
  const GroupPlace place(args.norm, row);
  const Wide<T> around = pass == NormPass::forward ? widen(args.x[place.base]) : args.mean[row];
  if (args.stage != NormStage::results) {
    double sums[kNormSums] = {};
    add_terms<T, V, pass>(args, place, around, pass == NormPass::forward ? 1 : args.rstd[row], begin, end, sums);
#pragma unroll
    for (int k = 0; k < kSums; ++k) {
      const double sum = block_sum<kNormThreads>(sums[k]);
      if (threadIdx.x == 0) {
        args.stage == NormStage::both ? totals[k] = sum
                                      : args.sums[static_cast<int64_t>(blockIdx.x) * kNormSums + k] = sum;
      }
      __syncthreads();
    }
    if (args.stage == NormStage::sums) {
      return;
    }
  } else {
    if (threadIdx.x < kSums) {
      double sum = 0;
      for (int k = 0; k < args.parts; ++k) {
        sum += args.sums[(row * args.parts + k) * kNormSums + threadIdx.x];
      }
      totals[threadIdx.x] = sum;
    }
    __syncthreads();
  }
  if constexpr (pass == NormPass::forward) {
    store_normalised<T, V>(args, place, row, totals, around, begin, end);
  } else if constexpr (pass == NormPass::backward) {
    store_gradient<T, V>(args, place, row, totals, begin, end);
  } else {
    store_tangent<T, V>(args, place, row, totals, begin, end);
  }
}

}  // namespace wgk
