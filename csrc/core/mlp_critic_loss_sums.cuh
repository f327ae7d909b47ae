// The sums over samples: the derivatives by weights and biases, a tile of one layer's for each block, and the loss.
#pragma once

#include "mlp_critic_loss_arguments.cuh"
#include "norm_penalty_formulas.h"
#include "reduce.cuh"

namespace wgk {

constexpr int kStageSamples = 16;  // in shared memory at a time
constexpr int kSumStages = 4;      // over which products are added up before they go to the totals: few, for accuracy
constexpr int kPerSide = 4;        // rows, and columns, of a thread

// A stage of samples [kStageSamples, kColumns] on its way from what is kept to shared memory, read one stage ahead.
template <class T, int kColumns>
struct StageColumns {
  static constexpr int V = kPackOf<T>, kPacks = kStageSamples * kColumns / V / kSumThreads;
  static_assert(kPacks * kSumThreads * V == kStageSamples * kColumns);
  Pack<T, V> packs[kPacks];

  WGK_DEVICE static int at(int k) { return (k * kSumThreads + static_cast<int>(threadIdx.x)) * V; }

  // From sample `first` and `column` on of kept numbers [samples, stride]; zeros past their ends.
  WGK_DEVICE void load(const T* kept, int64_t samples, int64_t stride, int64_t first, int64_t column) {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      const int64_t row = first + at(k) / kColumns, j = column + at(k) % kColumns;
      packs[k] = {};
      if (row < samples && j < stride) {
        packs[k] = load_pack<V>(kept + row * stride + j);
      }
    }
  }
  WGK_DEVICE void store(T* stage) const {
#pragma unroll
    for (int k = 0; k < kPacks; ++k) {
      *reinterpret_cast<Pack<T, V>*>(stage + at(k)) = packs[k];
    }
  }
};

template <class T>
struct MlpTile {
  static constexpr int V = kPackOf<T>, kAcross = kTileColumns / kPerSide;
  static_assert(kTileRows / kPerSide * kAcross == kSumThreads && kTileRows <= kSumThreads);
  const MlpArguments<T>& a;
  const MlpCudaLayer<T>& layer;
  int64_t row, column;  // of the tile
  T totals[kPerSide][kPerSide] = {};
  T sums[kPerSide][kPerSide] = {};
  double bias_sum = 0;

  WGK_DEVICE MlpTile(const MlpArguments<T>& a, const MlpCudaLayer<T>& layer, int64_t tile) : a(a), layer(layer) {
    const int64_t across = max(ceil_div(layer.in, kTileColumns), int64_t{1});
    row = tile / across * kTileRows;
    column = tile % across * kTileColumns;
  }

  WGK_DEVICE static int thread() { return static_cast<int>(threadIdx.x); }
  // Threads of the tiles that come first in their rows have a bias each.
  WGK_DEVICE bool has_bias() const {
    return column == 0 && thread() < kTileRows && row + thread() < layer.out && layer.grad_bias != nullptr;
  }

  WGK_DEVICE static void load_side(const T* from, T (&v)[kPerSide]) {
#pragma unroll
    for (int at = 0; at < kPerSide; at += V) {
      const Pack<T, V> pack = load_pack<V>(from + at);
#pragma unroll
      for (int e = 0; e < V; ++e) {
        v[at + e] = pack.get(e);
      }
    }
  }

  // deltas: [kStageSamples, kTileRows]; factors: [kStageSamples, kTileColumns].
  WGK_DEVICE void add_stage(const T* deltas, const T* factors) {
    deltas += thread() / kAcross * kPerSide;
    factors += thread() % kAcross * kPerSide;
#pragma unroll
    for (int k = 0; k < kStageSamples; ++k) {
      T by_row[kPerSide], by_column[kPerSide];
      load_side(deltas + k * kTileRows, by_row);
      load_side(factors + k * kTileColumns, by_column);
#pragma unroll
      for (int at = 0; at < kPerSide * kPerSide; ++at) {
        sums[at / kPerSide][at % kPerSide] += by_row[at / kPerSide] * by_column[at % kPerSide];
      }
    }
  }

  // The penalty has no derivative by biases, so mixed samples, the first B, do not count.
  WGK_DEVICE void add_biases(const T* deltas, int64_t first_sample) {
    for (int k = 0; k < kStageSamples; ++k) {
      bias_sum += first_sample + k < a.B ? 0.0 : static_cast<double>(deltas[k * kTileRows + thread()]);
    }
  }

  WGK_DEVICE void flush() {
#pragma unroll
    for (int at = 0; at < kPerSide * kPerSide; ++at) {
      totals[at / kPerSide][at % kPerSide] += sums[at / kPerSide][at % kPerSide];
      sums[at / kPerSide][at % kPerSide] = 0;
    }
  }

  WGK_DEVICE void add_samples() {
    WGK_SHARED(T, deltas, 2 * kStageSamples * kTileRows);
    WGK_SHARED(T, factors, 2 * kStageSamples * kTileColumns);
    StageColumns<T, kTileRows> next_deltas;
    StageColumns<T, kTileColumns> next_factors;
    const int64_t samples = a.kinds * a.B, stages = ceil_div(samples, kStageSamples);
#pragma unroll 1
    for (int64_t stage = -1; stage < stages; ++stage) {
      const bool more = stage + 1 < stages;
      if (more) {
        const int64_t first = (stage + 1) * kStageSamples;
        next_deltas.load(a.kept + layer.delta, samples, a.padded(layer.out), first, row);
        next_factors.load(a.kept + layer.factor, samples, a.padded(layer.in), first, column);
      }
      if (stage >= 0) {
        const int half = static_cast<int>(stage % 2);
        add_stage(deltas + half * kStageSamples * kTileRows, factors + half * kStageSamples * kTileColumns);
        if (has_bias()) {
          add_biases(deltas + half * kStageSamples * kTileRows, stage * kStageSamples);
        }
        if (stage % kSumStages == kSumStages - 1) {
          flush();
        }
      }
      if (more) {
        const int half = static_cast<int>((stage + 1) % 2);
        next_deltas.store(deltas + half * kStageSamples * kTileRows);
        next_factors.store(factors + half * kStageSamples * kTileColumns);
        __syncthreads();
      }
    }
    flush();
  }

  WGK_DEVICE void store() const {
    const int64_t first = column + thread() % kAcross * kPerSide;
#pragma unroll
    for (int r = 0; r < kPerSide; ++r) {
      const int64_t o = row + thread() / kAcross * kPerSide + r;
#pragma unroll
      for (int e = 0; e < kPerSide; e += V) {
        T* const to = layer.grad_weight + o * layer.in + first + e;
        Pack<T, V> pack;
#pragma unroll
        for (int v = 0; v < V; ++v) {
          pack.set(v, totals[r][e + v]);
          if (!layer.packed && o < layer.out && first + e + v < layer.in) {
            to[v] = totals[r][e + v];
          }
        }
        if (layer.packed && o < layer.out && first + e < layer.in) {
          store_pack<V>(to, pack);
        }
      }
    }
    if (has_bias()) {
      layer.grad_bias[row + thread()] = static_cast<T>(bias_sum);
    }
  }
};

// Of all threads of one block.
template <class T>
WGK_DEVICE void reduce_loss(const MlpArguments<T>& a) {
  double squares = 0, difference = 0;
  for (int64_t b = threadIdx.x; b < a.B; b += kSumThreads) {
    const double e = excess(a.penalty, a.norms[b]);
    squares += e * e;
  }
  for (int64_t group = threadIdx.x; a.kinds > 1 && group < a.groups; group += kSumThreads) {
    const int kind = static_cast<int>(group % a.kinds);
    difference += kind == 0 ? 0 : kind == 1 ? a.score_sums[group] : -a.score_sums[group];
  }
  squares = block_sum<kSumThreads>(squares);
  __syncthreads();  // the sum's shared memory is free again
  difference = block_sum<kSumThreads>(difference);
  if (threadIdx.x == 0) {  // 0 / 0 for no samples, as torch's mean has it
    const double scores = static_cast<double>(a.B) * static_cast<double>(a.layers[a.depth - 1].out);
    *a.value = static_cast<T>(reduced(a.penalty, a.B, squares));
    *a.wasserstein = static_cast<T>(a.kinds == 1 ? 0 : difference / scores);
  }
}

// The first block has the loss, the others a tile each.
template <class T>
__global__ void __launch_bounds__(kSumThreads) mlp_sums_kernel(const __grid_constant__ MlpArguments<T> a) {
  if (blockIdx.x == 0) {
    return reduce_loss(a);
  }
  const int64_t tile = static_cast<int64_t>(blockIdx.x) - 1;
  int l = 0;
  while (l + 1 < a.depth && a.layers[l + 1].first_tile <= tile) {
    ++l;
  }
  MlpTile<T> sums(a, a.layers[l], tile - a.layers[l].first_tile);
  sums.add_samples();
  sums.store();
}

}  // namespace wgk
