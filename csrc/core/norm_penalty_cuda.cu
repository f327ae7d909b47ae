#include "combine.cuh"
#include "norm_penalty_formulas.h"
#include "row_sums.cuh"

namespace wgk {
namespace {

template <class T>
struct FinishNorms {
  NormPenalty penalty;
  int64_t B;
  Wide<T>* value;  // [B] or [1]
  double* norms;   // [B]

  WGK_DEVICE double row(int64_t row, double squares) const {
    const double norm = sqrt(squares), e = excess(penalty, norm);
    norms[row] = norm;
    if (penalty.reduction == Reduction::none) {
      value[row] = static_cast<Wide<T>>(penalty.weight * (e * e));
    }
    return e * e;
  }
  WGK_DEVICE void all(double sum) const { value[0] = static_cast<Wide<T>>(reduced(penalty, B, sum)); }
};

template <class T>
struct FinishDots {
  NormPenalty penalty;
  int64_t B;
  const double* norms;       // [B]
  double* dots;              // [B]
  Wide<T>* grad_grad_value;  // [B] or [1]

  WGK_DEVICE double row(int64_t row, double dot) const {
    const double along = factor(penalty, B) * first_scale(penalty, norms[row]) * dot;
    dots[row] = dot;
    if (penalty.reduction == Reduction::none) {
      grad_grad_value[row] = static_cast<Wide<T>>(along);
    }
    return along;
  }
  WGK_DEVICE void all(double sum) const { grad_grad_value[0] = static_cast<Wide<T>>(sum); }
};

template <class T>
struct BackwardFactors {
  NormPenalty penalty;
  int64_t B;
  const Wide<T>* grad_value;  // [B] or [1]
  const double* norms;        // [B]

  WGK_DEVICE double scale(int64_t row) const {
    return grad_value[penalty.reduction == Reduction::none ? row : 0] * factor(penalty, B);
  }
  WGK_DEVICE Factors operator()(int64_t row) const {
    return {0, scale(row) * first_scale(penalty, norms[row])};
  }
};

template <class T>
struct DoubleBackwardFactors {
  BackwardFactors<T> backward;
  const double* dots;  // [B]

  WGK_DEVICE Factors operator()(int64_t row) const {
    const double scale = backward.scale(row), norm = backward.norms[row];
    return {scale * first_scale(backward.penalty, norm), scale * second_scale(backward.penalty, norm, dots[row])};
  }
};

}  // namespace

// For the sums of the rows, and these.
int64_t norm_penalty_cuda_workspace(int64_t B, int64_t D) {
  return (row_sums_workspace(B, D) + B) * static_cast<int64_t>(sizeof(double));
}

CudaStatus norm_penalty_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                             const void* grad, void* value, double* norms, void* workspace) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const FinishNorms<T> finish{penalty, B, static_cast<Wide<T>*>(value), norms};
    const auto* x = static_cast<const T*>(grad);
    return sum_rows<T, false>(stream, B, D, x, x, penalty.reduction != Reduction::none, static_cast<double*>(workspace),
                              finish);
  });
}

CudaStatus norm_penalty_backward_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B, int64_t D,
                                      const void* grad_value, const void* grad, const double* norms, void* grad_x) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const BackwardFactors<T> factors{penalty, B, static_cast<const Wide<T>*>(grad_value), norms};
    const T* const no_u = nullptr;
    return combine<T, false>(stream, B, D, factors, no_u, static_cast<const T*>(grad), static_cast<T*>(grad_x));
  });
}

CudaStatus norm_penalty_double_backward_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B,
                                             int64_t D, const void* grad_grad_x, const void* grad_value,
                                             const void* grad, const double* norms, void* grad_grad_value,
                                             void* grad_x, void* workspace) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const auto *u = static_cast<const T*>(grad_grad_x), *x = static_cast<const T*>(grad);
    auto* const dots = static_cast<double*>(workspace);
    const FinishDots<T> finish{penalty, B, norms, dots, static_cast<Wide<T>*>(grad_grad_value)};
    const CudaStatus status =
        sum_rows<T, true>(stream, B, D, u, x, penalty.reduction != Reduction::none, dots + B, finish);
    if (status != 0) {
      return status;
    }
    const BackwardFactors<T> backward{penalty, B, static_cast<const Wide<T>*>(grad_value), norms};
    return combine<T, true>(stream, B, D, DoubleBackwardFactors<T>{backward, dots}, u, x, static_cast<T*>(grad_x));
  });
}

}  // namespace wgk
