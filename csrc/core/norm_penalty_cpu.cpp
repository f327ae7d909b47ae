#include "norm_penalty.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "norm_penalty_formulas.h"
#include "rows.h"

#define WGK_KERNELS "row_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

// Results larger than this leave the caches before they are read again.
constexpr int64_t kStreamingBytes = 4 << 20;

template <class T>
using Value = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <class T>
double grad_value_of(const NormPenalty& p, const void* grad_value, int64_t row) {
  return static_cast<const Value<T>*>(grad_value)[p.reduction == Reduction::none ? row : 0];
}

// sum(first element, elements) of each block.
template <class Sum>
std::vector<double> block_sums(ParallelFor run, const RowBlocks& blocks, const Sum& sum) {
  std::vector<double> sums(blocks.count());
  blocks.for_each(run, [&](int64_t block, int64_t row, int64_t begin, int64_t n) {
    sums[block] = sum(row * blocks.D + begin, n);
  });
  return sums;
}

template <class T>
bool streams(const RowBlocks& blocks, const void* out) {
  return blocks.B * blocks.D * static_cast<int64_t>(sizeof(T)) >= kStreamingBytes &&
         reinterpret_cast<uintptr_t>(out) % 64 == 0 && blocks.D * sizeof(T) % 64 == 0;
}

// Norms from the sums of squares of each block, and the value from the norms.
template <class T>
void reduce(const NormPenalty& p, const RowBlocks& blocks, const double* squares, Value<T>* value, double* norms) {
  double sum = 0;
  for (int64_t row = 0; row < blocks.B; ++row) {
    norms[row] = std::sqrt(blocks.row_sum(squares, row));
    const double penalty = excess(p, norms[row]) * excess(p, norms[row]);
    if (p.reduction == Reduction::none) {
      value[row] = static_cast<Value<T>>(p.weight * penalty);
    }
    sum += penalty;
  }
  if (p.reduction != Reduction::none) {
    value[0] = static_cast<Value<T>>(reduced(p, blocks.B, sum));
  }
}

template <class T>
void forward(Isa isa, ParallelFor run, const NormPenalty& p, int64_t B, int64_t D, const T* grad, Value<T>* value,
             double* norms) {
  const RowBlocks blocks(B, D);
  const auto sum_of_squares = WGK_PICK(isa, sum_of_squares<T>);
  const std::vector<double> squares =
      block_sums(run, blocks, [&](int64_t at, int64_t n) { return sum_of_squares(grad + at, n); });
  reduce<T>(p, blocks, squares.data(), value, norms);
}

template <class T>
void backward(Isa isa, ParallelFor run, const NormPenalty& p, int64_t B, int64_t D, const void* grad_value,
              const T* grad, const double* norms, T* grad_x) {
  const RowBlocks blocks(B, D);
  const auto combine = WGK_PICK(isa, combine<T, false>);
  const bool streaming = streams<T>(blocks, grad_x);
  blocks.for_each(run, [&](int64_t, int64_t row, int64_t begin, int64_t n) {
    const double scale = grad_value_of<T>(p, grad_value, row) * factor(p, B) * first_scale(p, norms[row]);
    const int64_t at = row * D + begin;
    combine(0, nullptr, scale, grad + at, grad_x + at, n, streaming);
  });
}

// Rows of one block are scaled while they are still in the cache, and the next is read meanwhile; longer rows are read
// twice.
template <class T>
void forward_with_grad(Isa isa, ParallelFor run, const NormPenalty& p, int64_t B, int64_t D, const T* grad,
                       Value<T>* value, double* norms, T* grad_x) {
  const RowBlocks blocks(B, D);
  if (blocks.per_row > 1 || p.reduction == Reduction::none) {
    const std::vector<Value<T>> ones(B, 1);
    forward<T>(isa, run, p, B, D, grad, value, norms);
    return backward<T>(isa, run, p, B, D, ones.data(), grad, norms, grad_x);
  }
  const auto sum_of_squares = WGK_PICK(isa, sum_of_squares<T>);
  const auto scale_and_sum_squares = WGK_PICK(isa, scale_and_sum_squares<T>);
  const auto combine = WGK_PICK(isa, combine<T, false>);
  const bool streaming = streams<T>(blocks, grad_x);
  std::vector<double> squares(B);
  parallel_for(run, B, blocks.grain(), [&](int64_t begin, int64_t end) {
    squares[begin] = sum_of_squares(grad + begin * D, D);
    for (int64_t row = begin; row < end; ++row) {
      const double scale = factor(p, B) * first_scale(p, std::sqrt(squares[row]));
      const T* from = grad + row * D;
      if (row + 1 < end) {
        squares[row + 1] = scale_and_sum_squares(scale, from, grad_x + row * D, from + D, D, streaming);
      } else {
        combine(0, nullptr, scale, from, grad_x + row * D, D, streaming);
      }
    }
  });
  reduce<T>(p, blocks, squares.data(), value, norms);
}

template <class T>
void double_backward(Isa isa, ParallelFor run, const NormPenalty& p, int64_t B, int64_t D, const T* grad_grad_x,
                     const void* grad_value, const T* grad, const double* norms, Value<T>* grad_grad_value,
                     T* grad_x) {
  const RowBlocks blocks(B, D);
  const auto dot = WGK_PICK(isa, dot<T>);
  const std::vector<double> dots =
      block_sums(run, blocks, [&](int64_t at, int64_t n) { return dot(grad_grad_x + at, grad + at, n); });
  const auto combine = WGK_PICK(isa, combine<T, true>);
  const bool streaming = streams<T>(blocks, grad_x);
  blocks.for_each(run, [&](int64_t, int64_t row, int64_t begin, int64_t n) {
    const double norm = norms[row], scale = grad_value_of<T>(p, grad_value, row) * factor(p, B);
    const double along = second_scale(p, norm, blocks.row_sum(dots.data(), row));
    const int64_t at = row * D + begin;
    combine(scale * first_scale(p, norm), grad_grad_x + at, scale * along, grad + at, grad_x + at, n, streaming);
  });
  double sum = 0;
  for (int64_t row = 0; row < B; ++row) {
    const double along = factor(p, B) * first_scale(p, norms[row]) * blocks.row_sum(dots.data(), row);
    if (p.reduction == Reduction::none) {
      grad_grad_value[row] = static_cast<Value<T>>(along);
    }
    sum += along;
  }
  if (p.reduction != Reduction::none) {
    grad_grad_value[0] = static_cast<Value<T>>(sum);
  }
}

}  // namespace

void norm_penalty(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                  const void* grad, void* value, double* norms) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    forward<T>(isa, run, penalty, B, D, static_cast<const T*>(grad), static_cast<Value<T>*>(value), norms);
  });
}

void norm_penalty_with_grad(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                            const void* grad, void* value, double* norms, void* grad_x) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    forward_with_grad<T>(isa, run, penalty, B, D, static_cast<const T*>(grad), static_cast<Value<T>*>(value), norms,
                         static_cast<T*>(grad_x));
  });
}

void norm_penalty_backward(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                           const void* grad_value, const void* grad, const double* norms, void* grad_x) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    backward<T>(isa, run, penalty, B, D, grad_value, static_cast<const T*>(grad), norms, static_cast<T*>(grad_x));
  });
}

void norm_penalty_double_backward(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B,
                                  int64_t D, const void* grad_grad_x, const void* grad_value, const void* grad,
                                  const double* norms, void* grad_grad_value, void* grad_x) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    double_backward<T>(isa, run, penalty, B, D, static_cast<const T*>(grad_grad_x), grad_value,
                       static_cast<const T*>(grad), norms, static_cast<Value<T>*>(grad_grad_value),
                       static_cast<T*>(grad_x));
  });
}

}  // namespace wgk
