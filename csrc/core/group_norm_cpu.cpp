#include "group_norm.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "buffer.h"
#include "group_norm_arguments.h"
#include "group_norm_chunks.h"
#include "group_norm_formulas.h"

#define WGK_KERNELS "group_norm_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kStreamingBytes = 4 << 20;  // results larger than this leave the caches before they are read again

template <class T>
bool streams(const GroupNorm& norm, int64_t run, const void* out, const void* other_out) {
  const uintptr_t offset = reinterpret_cast<uintptr_t>(out) | reinterpret_cast<uintptr_t>(other_out);
  return norm.B * norm.C * norm.S * static_cast<int64_t>(sizeof(T)) >= kStreamingBytes && offset % 64 == 0 &&
         run * sizeof(T) % 64 == 0;
}

// Whether parameters are copied to each element of a sample, rather than taken for a run at a time.
bool for_each_element(const GroupNorm& norm, bool has_params) { return has_params && norm.S < kNormLongRun; }

template <class T>
NormRows<T> rows_of(const GroupNorm& norm, bool has_params, const void* out, const void* other_out = nullptr) {
  const bool whole = !has_params || norm.S < kNormLongRun || norm.channels() == 1;
  NormRows<T> rows{};
  rows.groups = norm.G;
  rows.runs = whole ? 1 : norm.channels();
  rows.run = whole ? norm.group_size() : norm.S;
  rows.streaming = streams<T>(norm, rows.run, out, other_out);
  return rows;
}

// A parameter of runs, or of elements, and of these `missing` where it is not there.
template <class T>
const Wide<T>* spread(const GroupNorm& norm, bool each, const void* from, double missing, Buffer<Wide<T>>& memory) {
  const auto* values = static_cast<const Wide<T>*>(from);
  if (!each || (values != nullptr && norm.S == 1)) {
    return values;
  }
  memory = Buffer<Wide<T>>(norm.C * norm.S);
  for (int64_t c = 0; c < norm.C; ++c) {
    std::fill_n(memory.get() + c * norm.S, norm.S, values == nullptr ? static_cast<Wide<T>>(missing) : values[c]);
  }
  return memory.get();
}

// Calls f(chunk, group, first sample, last) in parallel.
template <class F>
void for_chunks(ParallelFor run, const NormChunks& chunks, const GroupNorm& norm, const F& f) {
  const int64_t size = std::max<int64_t>(1, chunks.size * norm.group_size());
  parallel_for(run, chunks.count * norm.G, kNormGrain / size, [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; ++at) {
      const int64_t chunk = at / norm.G;
      f(chunk, at % norm.G, chunks.begin(chunk), chunks.end(chunk));
    }
    plain::finish_streaming();
  });
}

// The same of whole samples in channels_last, with memory for their sums and factors: f(chunk, b, columns).
template <class T, class F>
void for_samples(ParallelFor run, const NormChunks& chunks, const GroupNorm& norm, const void* out,
                 const void* other_out, const F& f) {
  const int64_t size = norm.C * norm.S;
  const int64_t grain = kNormGrain / std::max<int64_t>(1, chunks.size * size);
  parallel_for(run, chunks.count, grain, [&](int64_t begin, int64_t end) {
    const Buffer<double> sums(kColumnSums * norm.C);
    const Buffer<Wide<T>> factors(kColumnFactors * norm.C);
    NormColumns<T> columns{};
    columns.C = norm.C;
    columns.S = norm.S;
    columns.groups = norm.G;
    columns.streaming = streams<T>(norm, norm.C, out, other_out);
    columns.sums = sums.get();
    columns.factors = factors.get();
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      for (int64_t b = chunks.begin(chunk); b < chunks.end(chunk); ++b) {
        f(chunk, b, columns);
      }
    }
    plain::finish_streaming();
  });
}

template <class T>
const Wide<T>* wide(const void* p) {
  return static_cast<const Wide<T>*>(p);
}

template <class T, bool each>
void forward_rows(Isa isa, ParallelFor run, const GroupNorm& norm, const NormRows<T>& rows, double eps,
                  const GroupNormForward& at) {
  const auto normalise = WGK_PICK(isa, normalise_group<T, each>);
  for_chunks(run, NormChunks(norm.B, false), norm, [&](int64_t, int64_t group, int64_t b, int64_t) {
    normalise(rows, eps, b, group, static_cast<Wide<T>*>(at.mean), static_cast<Wide<T>*>(at.rstd));
  });
}

template <class T>
void forward_columns(Isa isa, ParallelFor run, const GroupNorm& norm, double eps, const GroupNormForward& at) {
  const auto normalise = WGK_PICK(isa, normalise_sample<T>);
  for_samples<T>(run, NormChunks(norm.B, false), norm, at.y, nullptr, [&](int64_t, int64_t b, NormColumns<T>& columns) {
    columns.x = static_cast<const T*>(at.x) + b * norm.C * norm.S;
    columns.y = static_cast<T*>(at.y) + b * norm.C * norm.S;
    columns.weight = wide<T>(at.weight);
    columns.bias = wide<T>(at.bias);
    normalise(columns, eps, static_cast<Wide<T>*>(at.mean) + b * norm.G, static_cast<Wide<T>*>(at.rstd) + b * norm.G);
  });
}

template <class T, bool each, bool has_grads>
void backward_rows(Isa isa, ParallelFor run, const GroupNorm& norm, const NormRows<T>& rows,
                   const GroupNormBackward& at) {
  using Part = std::conditional_t<each, Wide<T>, double>;
  const NormChunks chunks(norm.B, has_grads);
  const NormParts<Part> by_weight(chunks, norm, each, has_grads), by_bias(chunks, norm, each, has_grads);
  const auto backward = WGK_PICK(isa, backward_group<T, each, has_grads>);
  for_chunks(run, chunks, norm, [&](int64_t chunk, int64_t group, int64_t begin, int64_t end) {
    Part *const weight_part = by_weight.start(chunk, group), *const bias_part = by_bias.start(chunk, group);
    for (int64_t b = begin; b < end; ++b) {
      backward(rows, b, group, weight_part, bias_part);
    }
  });
  if (has_grads) {
    const int64_t S = by_weight.per_channel();
    add_chunks(run, chunks.count, norm.C, S, by_weight.all(), static_cast<Wide<T>*>(at.grad_weight));
    add_chunks(run, chunks.count, norm.C, S, by_bias.all(), static_cast<Wide<T>*>(at.grad_bias));
  }
}

template <class T>
void backward_columns(Isa isa, ParallelFor run, const GroupNorm& norm, const GroupNormBackward& at) {
  const bool has_grads = at.grad_weight != nullptr || at.grad_bias != nullptr;
  const NormChunks chunks(norm.B, has_grads);
  const NormParts<double> by_weight(chunks, norm, false, has_grads), by_bias(chunks, norm, false, has_grads);
  const auto backward = WGK_PICK(isa, backward_sample<T>);
  for_samples<T>(run, chunks, norm, at.grad_x, nullptr, [&](int64_t chunk, int64_t b, NormColumns<T>& columns) {
    const int64_t offset = b * norm.C * norm.S;
    columns.x = static_cast<const T*>(at.x) + offset;
    columns.g = static_cast<const T*>(at.grad_y) + offset;
    columns.grad_x = static_cast<T*>(at.grad_x) + offset;
    columns.weight = wide<T>(at.weight);
    columns.mean = wide<T>(at.mean) + b * norm.G;
    columns.rstd = wide<T>(at.rstd) + b * norm.G;
    backward(columns, by_weight.of(chunk, b == chunks.begin(chunk)), by_bias.of(chunk, b == chunks.begin(chunk)));
  });
  add_chunks(run, chunks.count, norm.C, 1, by_weight.all(), static_cast<Wide<T>*>(at.grad_weight));
  add_chunks(run, chunks.count, norm.C, 1, by_bias.all(), static_cast<Wide<T>*>(at.grad_bias));
}

template <class T, bool each, bool has_grads, bool along>
void double_backward_rows(Isa isa, ParallelFor run, const GroupNorm& norm, const NormRows<T>& rows,
                          const GroupNormDoubleBackward& at) {
  using Part = std::conditional_t<each, Wide<T>, double>;
  const NormChunks chunks(norm.B, has_grads);
  const NormParts<Part> by_weight(chunks, norm, each, has_grads);
  const auto double_backward = WGK_PICK(isa, double_backward_group<T, each, has_grads, along>);
  for_chunks(run, chunks, norm, [&](int64_t chunk, int64_t group, int64_t begin, int64_t end) {
    Part* const weight_part = by_weight.start(chunk, group);
    for (int64_t b = begin; b < end; ++b) {
      double_backward(rows, b, group, weight_part);
    }
  });
  add_chunks(run, chunks.count, norm.C, by_weight.per_channel(), by_weight.all(),
             static_cast<Wide<T>*>(at.grad_weight));
}

template <class T>
void double_backward_columns(Isa isa, ParallelFor run, const GroupNorm& norm, const GroupNormDoubleBackward& at) {
  const bool has_grads = at.grad_weight != nullptr;
  const NormChunks chunks(norm.B, has_grads);
  const NormParts<double> by_weight(chunks, norm, false, has_grads);
  const auto double_backward = WGK_PICK(isa, double_backward_sample<T>);
  for_samples<T>(run, chunks, norm, at.grad_grad_y, at.grad_x, [&](int64_t chunk, int64_t b, NormColumns<T>& columns) {
    const int64_t offset = b * norm.C * norm.S;
    columns.x = static_cast<const T*>(at.x) + offset;
    columns.g = static_cast<const T*>(at.grad_y) + offset;
    columns.u = static_cast<const T*>(at.grad_grad_x) + offset;
    columns.y = at.grad_grad_y == nullptr ? nullptr : static_cast<T*>(at.grad_grad_y) + offset;
    columns.grad_x = static_cast<T*>(at.grad_x) + offset;
    columns.weight = wide<T>(at.weight);
    columns.p = wide<T>(at.grad_grad_weight);
    columns.q = wide<T>(at.grad_grad_bias);
    columns.mean = wide<T>(at.mean) + b * norm.G;
    columns.rstd = wide<T>(at.rstd) + b * norm.G;
    double_backward(columns, by_weight.of(chunk, b == chunks.begin(chunk)));
  });
  add_chunks(run, chunks.count, norm.C, 1, by_weight.all(), static_cast<Wide<T>*>(at.grad_weight));
}

// Calls f with std::true_type or std::false_type for each condition.
template <class F>
void with_flags(const F& f) {
  f();
}
template <class F, class... Flags>
void with_flags(const F& f, bool first, Flags... others) {
  with_flags([&](auto... flags) { first ? f(std::true_type{}, flags...) : f(std::false_type{}, flags...); }, others...);
}

}  // namespace

void group_norm(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm, double eps, const GroupNormForward& at) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    if (norm.channels_last) {
      return forward_columns<T>(isa, run, norm, eps, at);
    }
    const bool has_params = at.weight != nullptr || at.bias != nullptr, each = for_each_element(norm, has_params);
    Buffer<Wide<T>> weight, bias;
    NormRows<T> rows = rows_of<T>(norm, has_params, at.y);
    rows.x = static_cast<const T*>(at.x);
    rows.y = static_cast<T*>(at.y);
    rows.weight = spread<T>(norm, each, at.weight, 1, weight);
    rows.bias = spread<T>(norm, each, at.bias, 0, bias);
    with_flags([&](auto each) { forward_rows<T, each>(isa, run, norm, rows, eps, at); }, each);
  });
}

void group_norm_backward(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm, const GroupNormBackward& at) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    if (norm.channels_last) {
      return backward_columns<T>(isa, run, norm, at);
    }
    const bool has_grads = at.grad_weight != nullptr || at.grad_bias != nullptr;
    const bool has_params = at.weight != nullptr || has_grads, each = for_each_element(norm, has_params);
    Buffer<Wide<T>> weight;
    NormRows<T> rows = rows_of<T>(norm, has_params, at.grad_x);
    rows.x = static_cast<const T*>(at.x);
    rows.g = static_cast<const T*>(at.grad_y);
    rows.grad_x = static_cast<T*>(at.grad_x);
    rows.weight = spread<T>(norm, each, at.weight, 1, weight);
    rows.mean = wide<T>(at.mean);
    rows.rstd = wide<T>(at.rstd);
    with_flags([&](auto each, auto grads) { backward_rows<T, each, grads>(isa, run, norm, rows, at); }, each,
               has_grads);
  });
}

void group_norm_double_backward(Isa isa, ParallelFor run, DType dtype, const GroupNorm& norm,
                                const GroupNormDoubleBackward& at) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    if (norm.channels_last) {
      return double_backward_columns<T>(isa, run, norm, at);
    }
    const bool has_grads = at.grad_weight != nullptr;
    const bool along = at.grad_grad_weight != nullptr || at.grad_grad_bias != nullptr;
    const bool has_params = at.weight != nullptr || has_grads || along, each = for_each_element(norm, has_params);
    Buffer<Wide<T>> weight, p, q;
    NormRows<T> rows = rows_of<T>(norm, has_params, at.grad_grad_y, at.grad_x);
    rows.x = static_cast<const T*>(at.x);
    rows.g = static_cast<const T*>(at.grad_y);
    rows.u = static_cast<const T*>(at.grad_grad_x);
    rows.y = static_cast<T*>(at.grad_grad_y);
    rows.grad_x = static_cast<T*>(at.grad_x);
    rows.weight = spread<T>(norm, each, at.weight, 1, weight);
    if (along) {
      rows.p = spread<T>(norm, each, at.grad_grad_weight, 0, p);
      rows.q = spread<T>(norm, each, at.grad_grad_bias, 0, q);
    }
    rows.mean = wide<T>(at.mean);
    rows.rstd = wide<T>(at.rstd);
    with_flags(
        [&](auto each, auto grads, auto along) {
          double_backward_rows<T, each, grads, along>(isa, run, norm, rows, at);
        },
        each, has_grads, along);
  });
}

}  // namespace wgk
