// The sweeps of mlp_critic_loss: a block takes a group of samples of one kind through all layers, there and back.
#pragma once

#include "mlp_critic_loss_products.cuh"
#include "norm_penalty_formulas.h"

namespace wgk {

// The activation's derivative times v.
template <class T>
WGK_DEVICE T bent(bool bends, T slope, T v) {
  return !bends ? v : slope == 0 ? T{0} : slope * v;
}

template <class T, int width, bool in_shared>
struct MlpSweep {
  const MlpArguments<T>& a;
  int kind, count;  // of the group's samples
  int64_t first;    // among those of their kind
  T *here, *next;   // panels, which sweeps go through in turns
  T* partials;
  uint8_t* masks;

  WGK_DEVICE MlpSweep(const MlpArguments<T>& a, T* shared) : a(a) {
    const int64_t group = blockIdx.x;
    kind = static_cast<int>(group % a.kinds);
    first = group / a.kinds * width;
    count = static_cast<int>(min(int64_t{width}, a.B - first));
    partials = shared;
    if constexpr (in_shared) {
      here = shared + kPartials<width, T>;
      masks = reinterpret_cast<uint8_t*>(here + 2 * width * a.stride);
    } else {
      here = a.panels + group * 2 * width * a.stride;
      masks = a.masks + group * a.mask_bytes;
    }
    next = here + width * a.stride;
  }

  WGK_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  WGK_DEVICE uint8_t* mask(const MlpCudaLayer<T>& layer) const { return masks + layer.mask; }

  // Ends a step: the next panel is whole, and nobody reads the other any more.
  WGK_DEVICE void turn() {
    __syncthreads();
    T* const done = here;
    here = next;
    next = done;
  }

  // Panel `here` of n features to the rows of this group's samples in what is kept, and zeros up to whole packs.
  WGK_DEVICE void keep(int64_t n, int64_t offset) const {
    constexpr int V = kPackOf<T>;
    const int stride = static_cast<int>(a.padded(n)), packs = stride / V;
    T* const rows = a.kept + offset + (kind * a.B + first) * stride;
    for (int at = thread(); at < count * packs; at += kSweepThreads) {
      const int s = at / packs, j = at % packs * V;
      Pack<T, V> pack = load_pack<V>(here + s * a.stride + j), whole;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        whole.set(e, j + e < n ? pack.get(e) : T{0});
      }
      store_pack<V>(rows + s * int64_t{stride} + j, whole);
    }
  }

  // Through the layers, from samples to scores or, for tangents, from the tangent of samples to that of the last input.
  template <bool tangent, bool packed>
  WGK_DEVICE void through(const MlpCudaLayer<T>& layer) const {
    multiply_rows<width, packed>(layer, here, a.stride, [&](int s, int o, T v) {
      uint8_t* const at = mask(layer) + s * layer.out + o;
      bool bends = false;
      if constexpr (tangent) {
        bends = layer.bends() && *at != 0;
      } else {
        v += layer.bias == nullptr ? T{0} : layer.bias[o];
        if (layer.bends()) {  // as torch has it at NaN: relu passes gradients on, leaky_relu scales them
          bends = layer.slope == 0 ? v <= 0 : !(v > 0);
          *at = bends;
        }
      }
      next[s * a.stride + o] = bent(bends, layer.slope, v);
    });
  }

  template <bool tangent>
  WGK_DEVICE void sweep_forward() {
    const bool keeps = tangent || (a.needs_grads && kind != 0);
#pragma unroll 1
    for (int l = 0; l < a.depth; ++l) {
      const MlpCudaLayer<T>& layer = a.layers[l];
      if (keeps) {
        keep(layer.in, layer.factor);
      }
      if (tangent && l + 1 == a.depth) {
        return;
      }
      if (layer.packed) {
        through<tangent, true>(layer);
      } else {
        through<tangent, false>(layer);
      }
      turn();
    }
  }

  WGK_DEVICE void load_samples() {
    const int D = static_cast<int>(a.layers[0].in);
    const T* const x = a.samples[kind] + first * D;
    for (int s = 0; s < width; ++s) {
      for (int d = thread(); d < D; d += kSweepThreads) {
        next[s * a.stride + d] = s < count ? x[s * int64_t{D} + d] : T{0};
      }
    }
    turn();
  }

  // From the scores down to the adjoint of the first layer, and with `to_samples` to the derivative by the samples.
  WGK_DEVICE void sweep_back(bool to_samples) {
    const MlpCudaLayer<T>& last = a.layers[a.depth - 1];
    const double mean = 1 / (static_cast<double>(a.B) * static_cast<double>(last.out));
    const T seed = static_cast<T>(kind == 0 ? 1 : kind == 1 ? -mean : mean);
    for (int s = 0; s < width; ++s) {
      for (int o = thread(); o < last.out; o += kSweepThreads) {
        next[s * a.stride + o] = bent(last.bends() && mask(last)[s * last.out + o] != 0, last.slope, seed);
      }
    }
    turn();
#pragma unroll 1
    for (int l = a.depth - 1; l >= 0; --l) {
      const MlpCudaLayer<T>& layer = a.layers[l];
      if (a.needs_grads) {
        keep(layer.out, layer.delta);
      }
      if (l == 0 && !to_samples) {
        return;
      }
      const MlpCudaLayer<T>& below = a.layers[max(l - 1, 0)];
      const bool bends = l > 0 && below.bends();
      const auto finish = [&](int s, int i, T v) {
        next[s * a.stride + i] = bent(bends && mask(below)[s * below.out + i] != 0, below.slope, v);
      };
      if (layer.packed) {
        multiply_columns<width, true>(layer, here, a.stride, partials, finish);
      } else {
        multiply_columns<width, false>(layer, here, a.stride, partials, finish);
      }
      turn();
    }
  }

  // The norm of each sample of panel `here`, the derivatives g by samples, and v = dP/dg in their place.
  WGK_DEVICE void penalise() {
    const int D = static_cast<int>(a.layers[0].in), lane = thread() % 32;
    for (int s = thread() / 32; s < count; s += kSweepWarps) {
      T* const g = here + s * a.stride;
      double squares = 0;
      for (int d = lane; d < D; d += 32) {
        squares += static_cast<double>(g[d]) * static_cast<double>(g[d]);
      }
      const double norm = sqrt(warp_sum(squares)), scale = factor(a.penalty, a.B) * first_scale(a.penalty, norm);
      if (lane == 0) {
        a.norms[first + s] = norm;
      }
      for (int d = lane; d < D; d += 32) {
        g[d] = static_cast<T>(scale * static_cast<double>(g[d]));
      }
    }
    __syncthreads();
  }

  WGK_DEVICE void add_scores() const {
    const int out = static_cast<int>(a.layers[a.depth - 1].out), lane = thread() % 32;
    double sum = 0;
    if (thread() < 32) {
      for (int s = 0; s < count; ++s) {
        for (int k = lane; k < out; k += 32) {
          sum += here[s * a.stride + k];
        }
      }
      sum = warp_sum(sum);
    }
    if (thread() == 0) {
      a.score_sums[blockIdx.x] = sum;
    }
  }

  WGK_DEVICE void run() {
    load_samples();
    sweep_forward<false>();
    if (kind != 0) {
      add_scores();
    }
    if (kind == 0 || a.needs_grads) {
      sweep_back(kind == 0);
    }
    if (kind == 0) {
      penalise();
      if (a.needs_grads) {
        sweep_forward<true>();
      }
    }
  }
};

template <class T, int width, bool in_shared>
__global__ void __launch_bounds__(kSweepThreads, 1)
    mlp_sweeps_kernel(const __grid_constant__ MlpArguments<T> a) {
  WGK_DYN_SHARED(T, shared);
  MlpSweep<T, width, in_shared>(a, shared).run();
}

}  // namespace wgk
