// Products of a layer's weights with a panel: weights are read where they are, whole rows of 16 bytes by the lanes of a
// warp, and no sum depends on how many samples there are or on how arrays are aligned.
#pragma once

#include "mlp_critic_loss_arguments.cuh"
#include "reduce.cuh"

namespace wgk {

// A lane's elements of a row of n numbers in global memory, from `begin` on, and zeros past its end.
template <bool packed, class T>
WGK_DEVICE void load_weights(const T* row, int begin, int n, T (&v)[kPackOf<T>]) {
  constexpr int V = kPackOf<T>;
  const int at = begin + static_cast<int>(threadIdx.x) % 32 * V;
  if constexpr (packed) {
    Pack<T, V> pack{};
    if (at < n) {
      pack = load_pack<V>(row + at);
    }
#pragma unroll
    for (int e = 0; e < V; ++e) {
      v[e] = pack.get(e);
    }
  } else {
#pragma unroll
    for (int e = 0; e < V; ++e) {
      v[e] = at + e < n ? row[at + e] : T{0};
    }
  }
}

// The same of a panel's row, whose stride is whole packs.
template <bool packed, class T>
WGK_DEVICE void load_panel(const T* row, int begin, int n, T (&v)[kPackOf<T>]) {
  constexpr int V = kPackOf<T>;
  const int at = begin + static_cast<int>(threadIdx.x) % 32 * V;
  Pack<T, V> pack{};
  if (at < n) {
    pack = load_pack<V>(row + at);
  }
#pragma unroll
  for (int e = 0; e < V; ++e) {
    v[e] = packed || at + e < n ? pack.get(e) : T{0};
  }
}

// The sums over all lanes of the first n of v, of which a lane gets n / 32: those from lane * n / 32 on. The order in
// which lanes are added up is the same for each number.
template <int n, int step = 16, int size, class T>
WGK_DEVICE void sum_over_lanes(T (&v)[size]) {
  constexpr int kHalf = n / 2;
  static_assert(kHalf >= step);
  const bool upper = threadIdx.x & step;
#pragma unroll
  for (int i = 0; i < kHalf; ++i) {
    const T sent = upper ? v[i] : v[i + kHalf], kept = upper ? v[i + kHalf] : v[i];
    v[i] = kept + __shfl_xor_sync(kAllLanes, sent, step);
  }
  if constexpr (step > 1) {
    sum_over_lanes<kHalf, step / 2>(v);
  }
}

// finish(s, o, sum of W[o, k] panel[s, k] over k): lanes share the terms, a warp has some rows of W at a time.
template <int width, bool packed, class T, class Finish>
WGK_DEVICE void multiply_rows(const MlpCudaLayer<T>& layer, const T* panel, int64_t stride, const Finish& finish) {
  constexpr int V = kPackOf<T>, kRows = width * sizeof(T) > 32 ? 4 : 8, kSums = kRows * width;
  const int in = static_cast<int>(layer.in), out = static_cast<int>(layer.out);
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
#pragma unroll 1
  for (int first = warp * kRows; first < out; first += kSweepWarps * kRows) {
    T sums[kSums] = {};
#pragma unroll 1
    for (int begin = 0; begin < in; begin += 32 * V) {
      T w[kRows][V];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {  // past the last row the last one again, for sums that nobody takes
        load_weights<packed>(layer.weight + min(first + r, out - 1) * layer.in, begin, in, w[r]);
      }
#pragma unroll
      for (int s = 0; s < width; ++s) {
        T h[V];
        load_panel<packed>(panel + s * stride, begin, in, h);
#pragma unroll
        for (int at = 0; at < kRows * V; ++at) {
          sums[at / V * width + s] += w[at / V][at % V] * h[at % V];
        }
      }
    }
    sum_over_lanes<kSums>(sums);
#pragma unroll
    for (int i = 0; i < kSums / 32; ++i) {
      const int at = lane * (kSums / 32) + i, o = first + at / width;
      if (o < out) {
        finish(at % width, o, sums[i]);
      }
    }
  }
}

// sums += W[o + k, i] panel[s, o + k] over n terms k; a lane has a pack of columns i. weight and panel begin at o.
template <int n, int width, bool packed, class T>
WGK_DEVICE void add_terms(const T* weight, int64_t in, int column, const T* panel, int64_t stride,
                          T (&sums)[width][kPackOf<T>]) {
  constexpr int V = kPackOf<T>, kTogether = n % V == 0 ? V : 1;
  T w[n][V];
#pragma unroll
  for (int k = 0; k < n; ++k) {
    load_weights<packed>(weight + k * in, column, static_cast<int>(in), w[k]);
  }
#pragma unroll
  for (int s = 0; s < width; ++s) {
#pragma unroll
    for (int first = 0; first < n; first += kTogether) {
      const auto deltas = load_pack<kTogether>(panel + s * stride + first);
#pragma unroll
      for (int at = 0; at < kTogether * V; ++at) {
        sums[s][at % V] += w[first + at / V][at % V] * deltas.get(at / V);
      }
    }
  }
}

// The elements of shared memory that multiply_columns needs.
template <int width, class T>
constexpr int kPartials = kSweepWarps * width * 32 * kPackOf<T>;

// finish(s, i, sum of W[o, i] panel[s, o] over o): lanes have columns, warps share the terms, and `partials` hold what
// each of them has. A barrier has to come before and after.
template <int width, bool packed, class T, class Finish>
WGK_DEVICE void multiply_columns(const MlpCudaLayer<T>& layer, const T* panel, int64_t stride, T* partials,
                                 const Finish& finish) {
  constexpr int V = kPackOf<T>, kColumns = 32 * V, kTerms = 8;
  const int in = static_cast<int>(layer.in), out = static_cast<int>(layer.out), whole = out - out % kTerms;
  const int tiles = in > kColumns ? 2 : 1, columns = tiles * kColumns, splits = kSweepWarps / tiles;
  const int warp = static_cast<int>(threadIdx.x) / 32, tile = warp % tiles, split = warp / tiles;
#pragma unroll 1
  for (int begin = 0; begin < in; begin += columns) {
    const int column = begin + tile * kColumns;
    T sums[width][V] = {};
#pragma unroll 1
    for (int o = split * kTerms; o < whole; o += splits * kTerms) {
      add_terms<kTerms, width, packed>(layer.weight + o * layer.in, layer.in, column, panel + o, stride, sums);
    }
#pragma unroll 1
    for (int o = whole + split; o < out; o += splits) {
      add_terms<1, width, packed>(layer.weight + o * layer.in, layer.in, column, panel + o, stride, sums);
    }
    if (begin > 0) {
      __syncthreads();  // nobody reads the partials of the columns before
    }
    const int at = (split * width * tiles + tile) * kColumns + static_cast<int>(threadIdx.x) % 32 * V;
#pragma unroll
    for (int s = 0; s < width; ++s) {
      Pack<T, V> pack;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        pack.set(e, sums[s][e]);
      }
      *reinterpret_cast<Pack<T, V>*>(partials + at + s * columns) = pack;
    }
    __syncthreads();
#pragma unroll 1
    for (int k = static_cast<int>(threadIdx.x); k < width * columns; k += kSweepThreads) {
      const int s = k / columns, i = begin + k % columns;
      if (i < in) {
        T sum = partials[k];
        for (int p = 1; p < splits; ++p) {
          sum += partials[p * width * columns + k];
        }
        finish(s, i, sum);
      }
    }
  }
}

}  // namespace wgk
