#include <algorithm>

#include "bias_leaky_relu.h"
#include "bias_leaky_relu_sums.cuh"
#include "combine.cuh"

namespace wgk {
namespace {

constexpr int kRectifyThreads = 256;
constexpr int kRectifyPacks = 4;  // a thread's, loaded before the first is used

// What is added to one element after another of [B, C, S], rows of S elements being RowsOfBlock's.
template <class T>
class Added {
 public:
  WGK_DEVICE Added(const RowsOfBlock& rows, int64_t C, int64_t first_channel, const Wide<T>* add, int i)
      : C_(C), columns_(rows.columns), add_(add), left_(0), channel_(0) {
    if (add != nullptr) {
      const int row = rows.row(i);
      left_ = rows.row_end(row) - i;
      channel_ = first_channel + row;
      channel_ -= channel_ < C ? 0 : (channel_ - C) / C * C + C;
    }
  }

  // -0 changes no number, and no zero's sign.
  WGK_DEVICE Wide<T> next() {
    if (add_ == nullptr) {
      return Wide<T>(-0.0);
    }
    const Wide<T> here = add_[channel_];
    if (--left_ == 0) {
      left_ = columns_;
      channel_ = channel_ + 1 == C_ ? 0 : channel_ + 1;
    }
    return here;
  }

 private:
  int64_t C_;
  int columns_;
  const Wide<T>* add_;
  int left_;
  int64_t channel_;
};

// Without y the pass forward, of a = x; with it out = (a + add) * dy/dz. a, y, out: [B, C, S], of which a block does
// some thousands of elements; add: [C], or null. Element -shift would lie on a multiple of 16 bytes, V elements.
// At least two blocks on a multiprocessor: to fit more of them ptxas would spill.
template <class T, bool has_y, int V>
__global__ void __launch_bounds__(kRectifyThreads, 2)
    rectify_kernel(int64_t rows, int64_t C, int64_t S, int shift, BiasLeakyRelu of, const T* a, const Wide<T>* add,
                   const T* y, T* out) {
  constexpr int kSize = kRectifyThreads * kRectifyPacks * V;
  const RowsOfBlock tile(rows, S, kSize, shift);
  const int64_t first_channel = add == nullptr ? 0 : tile.first_row % C;
  const Rectifier<T> by(of);
  a += tile.start;
  y += has_y ? tile.start : 0;
  out += tile.start;
  Pack<T, V> as[kRectifyPacks], ys[kRectifyPacks];
#pragma unroll
  for (int k = 0; k < kRectifyPacks; ++k) {
    const int i = (k * kRectifyThreads + static_cast<int>(threadIdx.x)) * V;
    if (i >= tile.begin && i + V <= tile.end) {
      as[k] = load_pack<V>(a + i);
      ys[k] = has_y ? load_pack<V>(y + i) : Pack<T, V>{};
    }
  }
  const auto value = [&](T a_i, Wide<T> b, T y_i) {
    const Wide<T> z = widen(a_i) + b;
    return narrow<T>(has_y ? by.scaled(z, widen(y_i)) : by.rectified(z));
  };
#pragma unroll
  for (int k = 0; k < kRectifyPacks; ++k) {
    const int i = (k * kRectifyThreads + static_cast<int>(threadIdx.x)) * V;
    if (i >= tile.begin && i + V <= tile.end) {
      Added<T> added(tile, C, first_channel, add, i);
      Pack<T, V> pack;
#pragma unroll
      for (int e = 0; e < V; ++e) {
        pack.set(e, value(as[k].get(e), added.next(), ys[k].get(e)));
      }
      store_pack<V>(out + i, pack);
    } else if (V > 1 && i + V > tile.begin && i < tile.end) {
      const int first = max(i, tile.begin);
      Added<T> added(tile, C, first_channel, add, first);
      for (int j = first; j < min(i + V, tile.end); ++j) {
        out[j] = value(a[j], added.next(), has_y ? y[j] : T{});
      }
    }
  }
}

template <class T, bool has_y, int V>
CudaStatus launch_rectify(CudaStream stream, const BiasLeakyRelu& of, int64_t rows, int64_t C, int64_t S, int shift,
                          const T* a, const Wide<T>* add, const T* y, T* out) {
  const auto blocks = static_cast<unsigned>(ceil_div(rows * S + shift, kRectifyThreads * kRectifyPacks * V));
  return WGK_LAUNCH((rectify_kernel<T, has_y, V>), blocks, kRectifyThreads, 0, stream, rows, C, S, shift, of, a, add,
                    y, out);
}

template <class T, bool has_y>
CudaStatus rectify(CudaStream stream, const BiasLeakyRelu& of, int64_t rows, int64_t C, int64_t S, const T* a,
                   const Wide<T>* add, const T* y, T* out) {
  const int shift = pack_offset(out);
  if (pack_offset(a) == shift && (!has_y || pack_offset(y) == shift)) {
    return launch_rectify<T, has_y, kPackOf<T>>(stream, of, rows, C, S, shift, a, add, y, out);
  }
  return launch_rectify<T, has_y, 1>(stream, of, rows, C, S, 0, a, add, y, out);
}

// The passes without a sum; y: null for the pass forward.
CudaStatus rectify(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C, int64_t S,
                   const void* a, const void* add, const void* y, void* out) {
  if (B * C * S == 0) {
    return 0;
  }
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const auto *from = static_cast<const T*>(a), *beside = static_cast<const T*>(y);
    const auto* channels = static_cast<const Wide<T>*>(add);
    auto* const to = static_cast<T*>(out);
    return y == nullptr ? rectify<T, false>(stream, of, B * C, C, S, from, channels, beside, to)
                        : rectify<T, true>(stream, of, B * C, C, S, from, channels, beside, to);
  });
}

}  // namespace

CudaStatus bias_leaky_relu_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                                int64_t S, const void* x, const void* bias, void* y) {
  return rectify(stream, dtype, of, B, C, S, x, bias, nullptr, y);
}

int64_t bias_leaky_relu_backward_cuda_workspace(int64_t B, int64_t C, int64_t S) {
  const ChannelParts parts(B, C, S);
  return parts.outer * C * parts.inner * static_cast<int64_t>(sizeof(double));
}

CudaStatus bias_leaky_relu_backward_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B, int64_t C,
                                         int64_t S, const void* grad_y, const void* y, void* grad_x, void* grad_bias,
                                         void* workspace) {
  if (grad_bias == nullptr) {
    return rectify(stream, dtype, of, B, C, S, grad_y, nullptr, y, grad_x);
  }
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    return scale_and_sum<T>(stream, of, B, C, S, static_cast<const T*>(grad_y), static_cast<const T*>(y),
                            static_cast<T*>(grad_x), static_cast<Wide<T>*>(grad_bias), static_cast<double*>(workspace));
  });
}

CudaStatus bias_leaky_relu_double_backward_cuda(CudaStream stream, DType dtype, const BiasLeakyRelu& of, int64_t B,
                                                int64_t C, int64_t S, const void* grad_grad_x,
                                                const void* grad_grad_bias, const void* y, void* grad_grad_y) {
  return rectify(stream, dtype, of, B, C, S, grad_grad_x, grad_grad_bias, y, grad_grad_y);
}

}  // namespace wgk
