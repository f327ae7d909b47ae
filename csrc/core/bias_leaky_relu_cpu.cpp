#include "bias_leaky_relu.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "buffer.h"

#define WGK_KERNELS "bias_leaky_relu_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kStreamingBytes = 4 << 20;  // results larger than this leave the caches before they are read again
constexpr int64_t kGrain = 3 << 14;           // elements below which a second thread costs more than it saves
constexpr int64_t kBlock = 1 << 14;           // elements of a row that are summed by one thread
constexpr int64_t kLongRow = 64;              // from here on the elements of a channel are a row of their own
constexpr int64_t kPeriod = 256;              // elements of a row at least where they are not
constexpr int64_t kTile = 1 << 16;            // elements whose sums by columns one thread adds up
constexpr int64_t kTileColumns = 1024;        // of these, so that sums stay in the nearest cache
constexpr int64_t kMostLanes = 16;            // of a vector

template <class T>
using Number = plain::Compute<T>;

template <class T>
bool streams(const void* out, int64_t count, int64_t row) {
  return count * static_cast<int64_t>(sizeof(T)) >= kStreamingBytes && reinterpret_cast<uintptr_t>(out) % 64 == 0 &&
         row * sizeof(T) % 64 == 0;
}

// [B, C, S] as B * C rows of one channel each, in blocks.
struct Rows {
  int64_t count, length, blocks;

  Rows(int64_t B, int64_t C, int64_t S) : count(B * C), length(S), blocks(std::max<int64_t>(1, ceil_div(S, kBlock))) {}

  // Calls f(row, block, first element of all, elements) in parallel.
  template <class F>
  void for_each(ParallelFor run, const F& f) const {
    const int64_t grain = kGrain / std::max<int64_t>(1, std::min(length, kBlock));
    parallel_for(run, count * blocks, grain, [&](int64_t begin, int64_t end) {
      int64_t row = begin / blocks, block = begin % blocks;
      for (int64_t at = begin; at < end; ++at) {
        f(row, at, row * length + block * kBlock, std::min(kBlock, length - block * kBlock));
        if (++block == blocks) {
          block = 0, ++row;
        }
      }
      plain::finish_streaming();
    });
  }
};

// The same memory as rows of one or more whole samples, in tiles; the last row may have fewer samples.
struct Columns {
  int64_t size, period, rows, tile_columns, tile_rows, tiles, chunks;

  Columns(int64_t B, int64_t C, int64_t S, int64_t most_columns)
      : size(B * C * S),
        period(C * S * ceil_div(kPeriod, std::min(C * S, kPeriod))),
        rows(ceil_div(size, period)),
        tile_columns(std::min(period, most_columns)),
        tile_rows(kTile / tile_columns),
        tiles(ceil_div(period, tile_columns)),
        chunks(ceil_div(rows, tile_rows)) {}

  // Calls f(chunk, first row, whole rows, first column, columns, those of one more row that ends before) in parallel.
  template <class F>
  void for_each(ParallelFor run, const F& f) const {
    const int64_t grain = kGrain / (tile_columns * std::min(tile_rows, rows));
    parallel_for(run, chunks * tiles, grain, [&](int64_t begin, int64_t end) {
      for (int64_t at = begin; at < end; ++at) {
        const int64_t chunk = at / tiles, row = chunk * tile_rows, column = at % tiles * tile_columns;
        const int64_t columns = std::min(tile_columns, period - column), last = std::min(rows, row + tile_rows);
        const int64_t in_last = std::clamp<int64_t>(size - (last - 1) * period - column, 0, columns);
        const bool is_whole = in_last == columns;
        f(chunk, row, last - row - (is_whole ? 0 : 1), column, columns, is_whole ? 0 : in_last);
      }
      plain::finish_streaming();
    });
  }
};

// A number for each element of a row, from one for each channel.
template <class T>
const Number<T>* spread(const Columns& columns, int64_t C, int64_t S, const Number<T>* channels,
                        Buffer<Number<T>>& memory) {
  if (columns.period == C) {
    return channels;
  }
  memory = Buffer<Number<T>>(columns.period);
  for (int64_t j = 0; j < columns.period; j += S) {
    std::fill_n(memory.get() + j, S, channels[j / S % C]);
  }
  return memory.get();
}

// y: null for the pass forward; add: null for none.
template <class T, bool clamped>
void rectify(Isa isa, ParallelFor run, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S, const T* a, const T* y,
             const Number<T>* add, T* out) {
  const auto beside = [=](int64_t at) { return y == nullptr ? nullptr : y + at; };
  if (add == nullptr || S >= kLongRow) {
    const auto rectify_row = WGK_PICK(isa, rectify_row<T, clamped>);
    const Rows rows = add == nullptr ? Rows(1, 1, B * C * S) : Rows(B, C, S);
    const bool streaming = streams<T>(out, B * C * S, rows.count == 1 ? kBlock : S);
    rows.for_each(run, [&](int64_t row, int64_t, int64_t at, int64_t n) {
      // -0 changes no number, and no zero's sign.
      rectify_row(of, a + at, beside(at), add == nullptr ? Number<T>{-0.0} : add[row % C], out + at, n, streaming);
    });
    return;
  }
  const auto rectify_columns = WGK_PICK(isa, rectify_columns<T, clamped>);
  const Columns columns(B, C, S, kBlock);
  Buffer<Number<T>> memory;
  const Number<T>* const each = spread<T>(columns, C, S, add, memory);
  const bool streaming = streams<T>(out, B * C * S, columns.period);
  columns.for_each(run, [&](int64_t, int64_t row, int64_t count, int64_t column, int64_t n, int64_t rest) {
    for (int64_t k = 0; k <= count; ++k) {
      const int64_t at = (row + k) * columns.period + column, length = k < count ? n : rest;
      if (length > 0) {
        rectify_columns(of, a + at, beside(at), each + column, out + at, length, streaming);
      }
    }
  });
}

template <class T, bool clamped>
void sum_rows(Isa isa, ParallelFor run, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S, const T* grad_y,
              const T* y, T* grad_x, Number<T>* grad_bias) {
  const auto scale_and_sum = WGK_PICK(isa, scale_and_sum_row<T, clamped>);
  const Rows rows(B, C, S);
  const bool streaming = streams<T>(grad_x, B * C * S, S);
  const Buffer<double> parts(rows.count * rows.blocks);
  rows.for_each(run, [&](int64_t, int64_t block, int64_t at, int64_t n) {
    parts.get()[block] = scale_and_sum(of, grad_y + at, y + at, grad_x + at, n, streaming);
  });
  for (int64_t c = 0; c < C; ++c) {
    double sum = 0;
    for (int64_t b = 0; b < B; ++b) {
      for (int64_t block = 0; block < rows.blocks; ++block) {
        sum += parts.get()[(b * C + c) * rows.blocks + block];
      }
    }
    grad_bias[c] = static_cast<Number<T>>(sum);
  }
}

template <class T, bool clamped>
void sum_columns(Isa isa, ParallelFor run, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S, const T* grad_y,
                 const T* y, T* grad_x, Number<T>* grad_bias) {
  const auto scale_and_sum = WGK_PICK(isa, scale_and_sum_columns<T, clamped>);
  const Columns columns(B, C, S, kTileColumns);
  const bool streaming = streams<T>(grad_x, B * C * S, columns.period);
  const int64_t period = columns.period;
  const Buffer<double> parts(columns.chunks * period);
  columns.for_each(run, [&](int64_t chunk, int64_t row, int64_t count, int64_t column, int64_t n, int64_t rest) {
    double sums[kTileColumns + kMostLanes] = {};  // a vector may end beyond the columns
    const int64_t at = row * period + column, after = at + count * period;
    scale_and_sum(of, grad_y + at, y + at, grad_x + at, count, period, n, sums, streaming);
    if (rest > 0) {
      scale_and_sum(of, grad_y + after, y + after, grad_x + after, 1, period, rest, sums, streaming);
    }
    std::copy_n(sums, n, parts.get() + chunk * period + column);
  });
  // The sums of a sample's elements, from those of all tiles and of all samples in a row.
  double* const totals = parts.get();
  const int64_t sample = C * S;
  for (int64_t k = 1; k < columns.chunks * (period / sample); ++k) {
    for (int64_t j = 0; j < sample; ++j) {
      totals[j] += totals[k * sample + j];
    }
  }
  for (int64_t c = 0; c < C; ++c) {
    grad_bias[c] = static_cast<Number<T>>(std::accumulate(totals + c * S, totals + (c + 1) * S, 0.0));
  }
}

template <class T, bool clamped>
void scale_and_sum(Isa isa, ParallelFor run, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S, const T* grad_y,
                   const T* y, T* grad_x, Number<T>* grad_bias) {
  if (B * C * S == 0) {
    std::fill_n(grad_bias, C, Number<T>{0});
  } else if (S >= kLongRow) {
    sum_rows<T, clamped>(isa, run, of, B, C, S, grad_y, y, grad_x, grad_bias);
  } else {
    sum_columns<T, clamped>(isa, run, of, B, C, S, grad_y, y, grad_x, grad_bias);
  }
}

// As T stores it: what a bound is compared with has been stored.
template <class T>
double rounded(double value) {
  using V = plain::Vector<T>;
  T stored[plain::kLanes<T>];
  plain::store(stored, plain::splat<V>(static_cast<Number<T>>(value)));
  return plain::load(stored)[0];
}

// Calls f(type, whether values are clamped, settings): the first two as types, the last with a bound of the type.
template <class F>
void with_settings(DType dtype, const BiasLeakyRelu& of, const F& f) {
  with_type(dtype, [&](auto type) {
    const BiasLeakyRelu settings{of.negative_slope, of.gain, rounded<decltype(type)>(of.clamp)};
    std::isinf(settings.clamp) ? f(type, std::false_type{}, settings) : f(type, std::true_type{}, settings);
  });
}

// The passes without a sum, as rectify has them.
void rectify(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S,
             const void* a, const void* y, const void* add, void* out) {
  if (B * C * S == 0) {
    return;
  }
  with_settings(dtype, of, [&](auto type, auto is_clamped, const BiasLeakyRelu& settings) {
    using T = decltype(type);
    const auto *from = static_cast<const T*>(a), *beside = static_cast<const T*>(y);
    rectify<T, decltype(is_clamped)::value>(isa, run, settings, B, C, S, from, beside,
                                            static_cast<const Number<T>*>(add), static_cast<T*>(out));
  });
}

}  // namespace

void bias_leaky_relu(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S,
                     const void* x, const void* bias, void* y) {
  rectify(isa, run, dtype, of, B, C, S, x, nullptr, bias, y);
}

void bias_leaky_relu_backward(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                              int64_t S, const void* grad_y, const void* y, void* grad_x, void* grad_bias) {
  if (grad_bias == nullptr) {
    return rectify(isa, run, dtype, of, B, C, S, grad_y, y, nullptr, grad_x);
  }
  with_settings(dtype, of, [&](auto type, auto is_clamped, const BiasLeakyRelu& settings) {
    using T = decltype(type);
    scale_and_sum<T, decltype(is_clamped)::value>(isa, run, settings, B, C, S, static_cast<const T*>(grad_y),
                                                  static_cast<const T*>(y), static_cast<T*>(grad_x),
                                                  static_cast<Number<T>*>(grad_bias));
  });
}

void bias_leaky_relu_double_backward(Isa isa, ParallelFor run, DType dtype, const BiasLeakyRelu& of, int64_t B,
                                     int64_t C, int64_t S, const void* grad_grad_x, const void* grad_grad_bias,
                                     const void* y, void* grad_grad_y) {
  rectify(isa, run, dtype, of, B, C, S, grad_grad_x, y, grad_grad_bias, grad_grad_y);
}

}  // namespace wgk
