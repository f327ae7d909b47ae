#include "kernel_sums.h"

#include <algorithm>

#include "kernel_sums_sweep.cuh"
#include "reduce.cuh"

namespace wgk {
namespace {

// Blocks that fill a large GPU a few times over; beyond them tiles of rows are not split. With gradients every split
// costs memory.
constexpr int64_t kBlocks = 2048, kGradientBlocks = 1056;

struct FinishArguments {
  SumsArguments swept;
  int64_t begin;
  int64_t selves[3];  // pairs of a point with itself in each block of pairs, where they count
  bool tangent;
  void* value;        // [B] or null
  double* sums;       // [B, 3, C]
  double* theta_sums; // the same or null
  KernelGradients gradients;
};

// What a point adds with itself: to the sums (q = 0) or those of theta, or along the tangent. Not of kernels of
// products: the sweep counts these pairs.
__device__ double at_zero(const MixtureArguments& mixture, int c, int q, bool tangent) {
  double value = 0;
  cuda::with_kernel<double>(mixture.kind(c), mixture.thetas[c], mixture.shapes[c], [&](const auto& kernel) {
    const auto terms = kernel(0.0);
    value = tangent ? (q == 0 ? terms.k_t : terms.k_tt) * mixture.along_thetas[c] : (q == 0 ? terms.k : terms.k_t);
  });
  return value;
}

// One block for a problem, one warp for a sum; lanes and then the warp add in a fixed order.
__device__ void finish_sums(const FinishArguments& f) {
  const SumsArguments& a = f.swept;
  const int C = a.mixture.C, lane = threadIdx.x % 32;
  const int64_t b = blockIdx.x, units = a.row_tiles * a.splits;
  for (int k = threadIdx.x / 32; k < 6 * C; k += kFinishThreads / 32) {
    const int at = k / 2, q = k % 2;
    if (q == 1 && f.theta_sums == nullptr) {
      continue;
    }
    const double* shares = a.shares + (b * 6 * C + k) * units;
    double sum = 0;
#pragma unroll 8
    for (int64_t unit = lane; unit < units; unit += 32) {
      sum += shares[unit];
    }
    sum = warp_sum(sum);
    if (lane == 0) {
      const int64_t selves = is_of_products(a.mixture.kind(at % C)) ? 0 : f.selves[at / C];
      sum += selves == 0 ? 0 : static_cast<double>(selves) * at_zero(a.mixture, at % C, q, f.tangent);
      (q == 0 ? f.sums : f.theta_sums)[b * 3 * C + at] = sum;
    }
  }
  __syncthreads();
  if (f.value != nullptr && threadIdx.x == 0) {
    double value = 0;
    for (int64_t at = b * 3 * C; at < (b + 1) * 3 * C; ++at) {
      value += a.weights[at] * f.sums[at];
    }
    store_element(a.points.z.dtype == DType::float64 ? DType::float64 : DType::float32, f.value, b, value);
  }
}

__device__ double moved_feature(const FinishArguments& f, int64_t b, int64_t row, int64_t d) {
  const SumsArguments& a = f.swept;
  const CentredPoints& z = a.points.z;
  // The very numbers that the sweep took, whose rounding then cancels.
  const PairNumbers numbers = pair_numbers(a.points, a.mixture, b);
  const auto feature = [&](const CentredPoints& p) { return centred_feature(p, numbers, b, row, d); };
  const int64_t chunk = d / (numbers == PairNumbers::wide ? kFeatures<double> : kFeatures<float>);
  double moved = 0, w = 0, along_w = 0, products = 0, along_products = 0;
  for (int64_t split = 0; split < a.splits; ++split) {
    moved += a.moved[((split * z.B + b) * (z.N + z.M) + row) * z.stride + d];
    const double* w_sums = a.w_sums_of(chunk, split, b, row);
    w += w_sums[0];
    along_w += w_sums[1];
    if (a.mixture.has_products) {
      const double* product_sums = a.product_sums_of(split, b, row);
      products += product_sums[0];
      along_products += product_sums[1];
    }
  }
  moved = f.tangent ? 2 * (w * feature(a.points.along) + along_w * feature(z) - moved) : 2 * (w * feature(z) - moved);
  if (a.mixture.has_products) {
    const int64_t at = b * z.D + d;
    moved += f.tangent ? products * a.points.along.origins[at] + along_products * z.origins[at]
                       : products * z.origins[at];
  }
  return moved;
}

__device__ void finish_gradient(const FinishArguments& f) {
  const CentredPoints& z = f.swept.points.z;
  const int64_t R = z.N + z.M, at = (blockIdx.x - z.B) * kFinishThreads + threadIdx.x;
  const int64_t b = at / z.D / R, row = at / z.D % R, d = at % z.D;
  const bool of_y = row >= z.N;
  if (at >= z.B * R * z.D || !f.swept.wants[of_y]) {
    return;
  }
  const double value = row < f.begin ? 0 : moved_feature(f, b, row, d);
  if (of_y) {
    store_element(f.gradients.dtype, f.gradients.y, (b * z.M + row - z.N) * z.D + d, value);
  } else {
    store_element(f.gradients.dtype, f.gradients.x, (b * z.N + row) * z.D + d, value);
  }
}

__global__ void __launch_bounds__(kFinishThreads) finish_sums_kernel(const FinishArguments f) {
  if (blockIdx.x < f.swept.points.z.B) {
    finish_sums(f);
  } else {
    finish_gradient(f);
  }
}

// How the sweep of a call is cut, and its pieces of the workspace.
SumsArguments sums_arguments(Pieces& pieces, MatmulPrecision precision, const PointPairs& p, int64_t C,
                             PairMode mode, const void* along_x, const void* along_y) {
  const auto points = [&](const void* x, const void* y) {
    return CentredPoints(pieces, p.dtype, p.B, p.N, p.M, p.D, x, y);
  };
  SumsArguments a{PairPoints(pieces, precision, points(p.x, p.y)), {}, nullptr, p.diagonal, {}, {}, {}, 0, 0,
                  nullptr, nullptr, nullptr, nullptr};
  if (mode == PairMode::tangents) {
    a.points.add_along(pieces, points(along_x, along_y));
  }
  const bool values = mode == PairMode::values;
  const int64_t R = p.N + p.M, rows = kPairWarps * 16 * (values ? 2 : 1);
  // Pieces as for all rows and both gradients: their number of tiles is the largest.
  const int64_t chunks = values ? 1 : feature_chunks(a.points.z.stride, kFeatures<float>);
  const int64_t tiles = ceil_div(R, rows) + 3, blocks = values ? kBlocks : kGradientBlocks;
  a.splits = std::max<int64_t>(1, std::min(ceil_div(R, 64), blocks / std::max<int64_t>(1, p.B * tiles * chunks)));
  a.shares = pieces.take<double>(p.B * 6 * C * tiles * a.splits);
  if (!values) {
    a.moved = pieces.take<double>(a.splits * p.B * R * a.points.z.stride);
    a.w_sums = pieces.take<double>(feature_chunks(a.points.z.stride, kFeatures<double>) * a.splits * p.B * R * 2);
    a.product_sums = pieces.take<double>(a.splits * p.B * R * 2);
  }
  return a;
}

void choose_rows(SumsArguments& a, const PointPairs& p, PairMode mode, const KernelGradients& gradients) {
  const int64_t R = p.N + p.M, rows = kPairWarps * 16 * (mode == PairMode::values ? 2 : 1);
  const auto segment = [](int64_t first, int64_t last) { return RowSegment{first, std::max(first, last)}; };
  const RowSegment segments[4] = {segment(p.begin, std::min(p.end, p.N)), segment(std::max(p.begin, p.N), p.end),
                                  segment(p.end, p.N), segment(std::max(p.end, p.N), R)};
  a.wants[0] = mode != PairMode::values && gradients.x != nullptr;
  a.wants[1] = mode != PairMode::values && gradients.y != nullptr;
  for (int k = 0; k < 4; ++k) {
    a.columns[k] = segments[k];
    a.rows[k] = k < 2 || a.wants[k % 2] ? segments[k] : RowSegment{0, 0};
    a.row_tiles += ceil_div(a.rows[k].last - a.rows[k].first, rows);
  }
}

template <class T, PairMode mode, bool has_theta>
CudaStatus launch_sweep(CudaStream stream, const SumsArguments& a) {
  const int64_t chunks = mode == PairMode::values ? 1 : feature_chunks(a.points.z.stride, kFeatures<T>);
  const unsigned blocks = static_cast<unsigned>(a.row_tiles * a.splits * a.points.z.B * chunks);
  if (blocks == 0) {
    return 0;
  }
  const size_t shared = SumsShared<T, mode>::bytes(a.mixture.C);
  return WGK_LAUNCH((sums_kernel<T, mode, has_theta>), dim3(blocks), dim3(kPairThreads), shared, stream, a);
}

template <PairMode mode, bool has_theta>
CudaStatus sweep(CudaStream stream, const SumsArguments& a) {
  CudaStatus status = 0;
  if (a.points.z.dtype != DType::float64) {
    status = launch_sweep<float, mode, has_theta>(stream, a);
  }
  return status == 0 ? launch_sweep<double, mode, has_theta>(stream, a) : status;
}

CudaStatus run(CudaStream stream, PairMode mode, const PointPairs& p, const KernelMixture& mixture,
               FinishArguments& f, double* sums, double* theta_sums, const KernelGradients& gradients,
               const double* weights) {
  SumsArguments& a = f.swept;
  if (p.B == 0) {
    return 0;
  }
  a.mixture = mixture_arguments(mixture);
  a.points.has_products = a.mixture.has_products;
  a.weights = weights;
  choose_rows(a, p, mode, gradients);
  f.begin = p.begin;
  f.selves[0] = p.diagonal ? a.columns[0].last - a.columns[0].first : 0;
  f.selves[1] = p.diagonal ? a.columns[1].last - a.columns[1].first : 0;
  f.sums = sums;
  f.theta_sums = theta_sums;
  f.gradients = gradients;
  CudaStatus status = centre_points(stream, a.points);
  if (status == 0) {
    status = mode == PairMode::tangents    ? sweep<PairMode::tangents, true>(stream, a)
             : mode == PairMode::gradients ? sweep<PairMode::gradients, true>(stream, a)
             : theta_sums != nullptr       ? sweep<PairMode::values, true>(stream, a)
                                           : sweep<PairMode::values, false>(stream, a);
  }
  const int64_t elements = a.wants[0] || a.wants[1] ? p.B * (p.N + p.M) * p.D : 0;
  const unsigned blocks = static_cast<unsigned>(p.B + ceil_div(elements, kFinishThreads));
  return status != 0 ? status
                     : WGK_LAUNCH(finish_sums_kernel, dim3(blocks), dim3(kFinishThreads), 0, stream, f);
}

}  // namespace

int64_t kernel_sums_cuda_workspace(const PointPairs& pairs, int64_t C, PairMode mode) {
  Pieces pieces(nullptr);
  sums_arguments(pieces, MatmulPrecision::ieee, pairs, C, mode, nullptr, nullptr);
  return pieces.bytes();
}

CudaStatus kernel_sums_cuda(CudaStream stream, MatmulPrecision precision, const PointPairs& pairs,
                            const KernelMixture& mixture, const double* weights, void* value, double* sums,
                            double* theta_sums, const KernelGradients& gradients, void* workspace) {
  const PairMode mode = gradients.any() ? PairMode::gradients : PairMode::values;
  Pieces pieces(workspace);
  FinishArguments f{sums_arguments(pieces, precision, pairs, mixture.C, mode, nullptr, nullptr), 0, {}, false, value,
                    nullptr, nullptr, {}};
  return run(stream, mode, pairs, mixture, f, sums, theta_sums, gradients, weights);
}

CudaStatus kernel_sums_tangent_cuda(CudaStream stream, MatmulPrecision precision, const PointPairs& pairs,
                                    const KernelMixture& mixture, const void* along_x, const void* along_y,
                                    const double* weights, double* sums, double* theta_sums,
                                    const KernelGradients& gradients, void* workspace) {
  Pieces pieces(workspace);
  FinishArguments f{sums_arguments(pieces, precision, pairs, mixture.C, PairMode::tangents, along_x, along_y), 0, {},
                    true, nullptr, nullptr, nullptr, {}};
  return run(stream, PairMode::tangents, pairs, mixture, f, sums, theta_sums, gradients, weights);
}

}  // namespace wgk
