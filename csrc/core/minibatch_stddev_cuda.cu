#include "any_element.cuh"
#include "minibatch_stddev.h"
#include "row_sums.cuh"

// A thread has some numbers of a group of samples, one after another: neighbours have neighbouring numbers.
namespace wgk {
namespace {

enum class Pass { value, backward, double_backward };

template <class T>
struct Numbers {
  SampleGroups groups;
  const T* u;           // grad_grad_x
  const T* grad_value;  // [M, F]
  T* grad_x;
  T* means;      // [M, F] value, or grad_grad_value
  double* sums;  // [M, F, chunks]
  int64_t chunks;
};

struct Moments {
  double mean, deviation;     // of x; the deviation with its floor
  double u_mean, covariance;  // of u, and with x
};

template <bool has_u, class T>
WGK_DEVICE Moments moments_of(const Numbers<T>& n, int64_t at, int64_t step) {
  const T* const x = static_cast<const T*>(n.groups.x) + at;
  const auto G = static_cast<double>(n.groups.G);
  Moments moments{};
  for (int64_t g = 0; g < n.groups.G; ++g) {
    moments.mean += widen(x[g * step]);
    if constexpr (has_u) {
      moments.u_mean += widen(n.u[at + g * step]);
    }
  }
  moments.mean /= G;
  moments.u_mean /= G;
  double squares = 0;
  for (int64_t g = 0; g < n.groups.G; ++g) {
    const double centred = widen(x[g * step]) - moments.mean;
    squares += centred * centred;
    if constexpr (has_u) {
      moments.covariance += widen(n.u[at + g * step]) * centred;
    }
  }
  moments.covariance /= G;
  moments.deviation = sqrt(squares / G + kVarianceFloor);
  return moments;
}

template <bool has_u, class T>
WGK_DEVICE void write_gradients(const Numbers<T>& n, int64_t at, int64_t step, const Moments& moments, double scale) {
  const T* const x = static_cast<const T*>(n.groups.x) + at;
  const double factor = scale / moments.deviation;
  const double along = moments.covariance / (moments.deviation * moments.deviation);
  for (int64_t g = 0; g < n.groups.G; ++g) {
    double grad = widen(x[g * step]) - moments.mean;
    if constexpr (has_u) {
      grad = widen(n.u[at + g * step]) - moments.u_mean - along * grad;
    }
    n.grad_x[at + g * step] = narrow<T>(static_cast<Wide<T>>(factor * grad));
  }
}

// The sums over a chunk of a block of numbers: of the deviations, or of their derivatives along u. Where a block has one
// chunk the mean is known, else it is left to finish_means_kernel.
template <Pass pass, class T>
__global__ void __launch_bounds__(kRowThreads, 2) stddev_kernel(const Numbers<T> n) {
  constexpr bool has_u = pass == Pass::double_backward;
  const int64_t P = n.groups.P, row = blockIdx.x / n.chunks, chunk = blockIdx.x - row * n.chunks;
  const int64_t step = n.groups.rows() * P, end = min(P, (chunk + 1) * kRowChunk);
  const double scale = pass == Pass::value ? 0 : widen(n.grad_value[row]) / (static_cast<double>(P) * n.groups.G);
  double sum = 0;
  for (int64_t p = chunk * kRowChunk + threadIdx.x; p < end; p += kRowThreads) {
    const Moments moments = moments_of<has_u>(n, row * P + p, step);
    if constexpr (pass != Pass::value) {
      write_gradients<has_u>(n, row * P + p, step, moments, scale);
    }
    sum += has_u ? moments.covariance / moments.deviation : moments.deviation;
  }
  if constexpr (pass != Pass::backward) {
    sum = block_sum<kRowThreads>(sum);
    if (threadIdx.x == 0 && n.chunks == 1) {
      n.means[row] = narrow<T>(static_cast<Wide<T>>(sum / static_cast<double>(P)));
    } else if (threadIdx.x == 0) {
      n.sums[blockIdx.x] = sum;
    }
  }
}

// means: [M, F] of dtype; sums: [M, F, chunks].
__global__ void __launch_bounds__(kFinishThreads)
    finish_means_kernel(SampleGroups groups, int64_t chunks, const double* sums, void* means) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x;
  if (row < groups.rows()) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum += sums[row * chunks + chunk];
    }
    store_element(groups.dtype, means, row, sum / static_cast<double>(groups.P));
  }
}

template <Pass pass, class T>
CudaStatus go_over_groups(CudaStream stream, const SampleGroups& groups, const void* u, const void* grad_value,
                          void* means, void* grad_x, void* workspace) {
  const int64_t rows = groups.rows(), chunks = row_chunks(groups.P);
  if (rows == 0) {
    return 0;
  }
  auto* const sums = static_cast<double*>(workspace);
  const Numbers<T> n{groups, static_cast<const T*>(u), static_cast<const T*>(grad_value), static_cast<T*>(grad_x),
                     static_cast<T*>(means), sums, chunks};
  const CudaStatus status = WGK_LAUNCH((stddev_kernel<pass, T>), dim3(static_cast<unsigned>(rows * chunks)),
                                       dim3(kRowThreads), 0, stream, n);
  if (status != 0 || pass == Pass::backward || chunks == 1) {
    return status;
  }
  return WGK_LAUNCH(finish_means_kernel, dim3(static_cast<unsigned>(ceil_div(rows, kFinishThreads))),
                    dim3(kFinishThreads), 0, stream, groups, chunks, sums, means);
}

}  // namespace

int64_t minibatch_stddev_cuda_workspace(const SampleGroups& groups) {
  return groups.rows() * row_chunks(groups.P) * static_cast<int64_t>(sizeof(double));
}

CudaStatus minibatch_stddev_cuda(CudaStream stream, const SampleGroups& groups, void* value, void* workspace) {
  return with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    return go_over_groups<Pass::value, T>(stream, groups, nullptr, nullptr, value, nullptr, workspace);
  });
}

CudaStatus minibatch_stddev_backward_cuda(CudaStream stream, const SampleGroups& groups, const void* grad_value,
                                          void* grad_x) {
  return with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    return go_over_groups<Pass::backward, T>(stream, groups, nullptr, grad_value, nullptr, grad_x, nullptr);
  });
}

CudaStatus minibatch_stddev_double_backward_cuda(CudaStream stream, const SampleGroups& groups,
                                                 const void* grad_grad_x, const void* grad_value,
                                                 void* grad_grad_value, void* grad_x, void* workspace) {
  return with_type(groups.dtype, [&](auto type) {
    using T = decltype(type);
    return go_over_groups<Pass::double_backward, T>(stream, groups, grad_grad_x, grad_value, grad_grad_value, grad_x,
                                                    workspace);
  });
}

}  // namespace wgk
