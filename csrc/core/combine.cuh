// out = a * u + b * x with factors per row: what interpolate and the derivatives of norm_penalty do with [B, D] arrays.
#pragma once

#include <cfloat>

#include "elements.cuh"

namespace wgk {

constexpr int kCombineThreads = 256;
constexpr int kCombinePacks = 4;   // a thread's, loaded before the first is used

struct Factors {
  double a, b;
};

// The part of [B, D], as one row, that a block works on: elements [begin, end) counted from `start`, which lies on a
// multiple of 16 bytes. Small numbers, for few registers.
struct RowsOfBlock {
  int64_t start, first_row;
  int begin, end;
  int head;     // where the second row begins
  int columns;  // D, or more than there are

  WGK_DEVICE RowsOfBlock(int64_t B, int64_t D, int size, int shift) {
    start = static_cast<int64_t>(blockIdx.x) * size - shift;
    begin = start < 0 ? static_cast<int>(-start) : 0;
    end = static_cast<int>(min(static_cast<int64_t>(size), B * D - start));
    first_row = (start + begin) / D;
    head = static_cast<int>(min(static_cast<int64_t>(size), (first_row + 1) * D - start));
    columns = static_cast<int>(min(static_cast<int64_t>(size), D));
  }

  // The row of element i, counted from the first, and where the next one begins.
  WGK_DEVICE int row(int i) const { return i < head ? 0 : 1 + (i - head) / columns; }
  WGK_DEVICE int row_end(int row) const { return head + row * columns; }
};

// a * u + b * x, or b * x without u, in Number and then in the type that T is computed in.
template <class T, bool has_u, class Number>
WGK_DEVICE T combined(Number a, T u, Number b, T x) {
  Number sum = multiply(b, static_cast<Number>(widen(x)));
  if constexpr (has_u) {
    sum = add(multiply(a, static_cast<Number>(widen(u))), sum);
  }
  return narrow<T>(static_cast<Wide<T>>(sum));
}

// Whether factors fit T's computing type. The 1 / norm of tiny gradients does not, but has products of ordinary size.
template <class T>
WGK_DEVICE bool fits(const Factors& f) {
  return std::is_same_v<T, double> || !(fabs(f.a) > FLT_MAX || fabs(f.b) > FLT_MAX);
}

// What does not come in whole packs, in one row, with factors that fit: element by element.
template <class T, bool has_u>
WGK_DEVICE void combine_each(const RowsOfBlock& tile, const Factors* factors, int begin, int end, const T* u,
                             const T* x, T* out) {
#pragma unroll 1
  for (int i = begin; i < end; ++i) {
    const Factors f = factors[tile.row(i)];
    const T u_i = has_u ? u[i] : T{};
    out[i] = fits<T>(f) ? combined<T, has_u>(static_cast<Wide<T>>(f.a), u_i, static_cast<Wide<T>>(f.b), x[i])
                        : combined<T, has_u>(f.a, u_i, f.b, x[i]);
  }
}

// u, x, out: [B, D], of which a block does `size` elements, in kCombineThreads rows at most. row_factors(row) gives a
// row's Factors. Element -shift would lie on a multiple of 16 bytes, V elements.
// At least two blocks on a multiprocessor: to fit many of them ptxas would spill.
template <class T, bool has_u, int V, class RowFactors>
__global__ void __launch_bounds__(kCombineThreads, 2)
    combine_kernel(int64_t B, int64_t D, int size, int shift, RowFactors row_factors, const T* u, const T* x, T* out) {
  WGK_SHARED(Factors, factors, kCombineThreads + 1);
  const RowsOfBlock tile(B, D, size, shift);
  x += tile.start;
  out += tile.start;
  if constexpr (has_u) {
    u += tile.start;
  }
  Pack<T, V> us[kCombinePacks], xs[kCombinePacks];
#pragma unroll
  for (int k = 0; k < kCombinePacks; ++k) {
    const int i = (k * kCombineThreads + static_cast<int>(threadIdx.x)) * V;
    if (V > 1 && i >= tile.begin && i + V <= tile.end) {
      us[k] = has_u ? load_pack<V>(u + i) : Pack<T, V>{};
      xs[k] = load_pack<V>(x + i);
    }
  }
  const int rows = tile.row(tile.end - 1) + 1;
  for (int row = static_cast<int>(threadIdx.x); row < rows; row += kCombineThreads) {
    factors[row] = row_factors(tile.first_row + row);
  }
  __syncthreads();
  unsigned left = 0;
#pragma unroll
  for (int k = 0; k < kCombinePacks; ++k) {
    const int i = (k * kCombineThreads + static_cast<int>(threadIdx.x)) * V;
    const bool whole = V > 1 && i >= tile.begin && i + V <= tile.end;
    const int row = whole ? tile.row(i) : 0;
    const Factors f = factors[row];
    if (!whole || i + V > tile.row_end(row) || !fits<T>(f)) {
      left |= 1u << k;
      continue;
    }
    const auto a = static_cast<Wide<T>>(f.a), b = static_cast<Wide<T>>(f.b);
    Pack<T, V> sums;
#pragma unroll
    for (int e = 0; e < V; ++e) {
      sums.set(e, combined<T, has_u>(a, us[k].get(e), b, xs[k].get(e)));
    }
    store_pack<V>(out + i, sums);
  }
#pragma unroll 1
  for (int k = 0; left >> k != 0; ++k) {
    const int first = (k * kCombineThreads + static_cast<int>(threadIdx.x)) * V;
    const int begin = left >> k & 1 ? max(first, tile.begin) : tile.end;
    combine_each<T, has_u>(tile, factors, begin, min(first + V, tile.end), u, x, out);
  }
}

template <class T, bool has_u, int V, class RowFactors>
CudaStatus launch_combine(CudaStream stream, int64_t B, int64_t D, int shift, const RowFactors& factors, const T* u,
                          const T* x, T* out) {
  constexpr int kPacks = kCombinePacks * V;
  const int size = kCombineThreads * static_cast<int>(D < kPacks ? D : kPacks);
  const auto blocks = static_cast<unsigned>(ceil_div(B * D + shift, size));
  return WGK_LAUNCH((combine_kernel<T, has_u, V, RowFactors>), blocks, kCombineThreads, 0, stream, B, D, size, shift,
                    factors, u, x, out);
}

// Enqueues out = a * u + b * x; u is null where has_u is false.
template <class T, bool has_u, class RowFactors>
CudaStatus combine(CudaStream stream, int64_t B, int64_t D, const RowFactors& factors, const T* u, const T* x, T* out) {
  if (B * D == 0) {
    return 0;
  }
  const int shift = pack_offset(out);
  if (pack_offset(x) == shift && (!has_u || pack_offset(u) == shift)) {
    return launch_combine<T, has_u, kPackOf<T>>(stream, B, D, shift, factors, u, x, out);
  }
  return launch_combine<T, has_u, 1>(stream, B, D, 0, factors, u, x, out);
}

}  // namespace wgk
