#include "pair_points.h"

#include "any_element.cuh"
#include "launch.h"
#include "mma.cuh"
#include "reduce.cuh"

namespace wgk {
namespace {

constexpr int kColumns = 32, kRowLanes = 8;  // of a block that sums rows
constexpr int kSlice = 512;                  // rows that one block sums
constexpr int kWarps = 8, kRowsOfWarp = 4;   // of a block that centres

__device__ double element(const CentredPoints& p, int64_t b, int64_t row, int64_t d) {
  const bool of_y = row >= p.N;
  const void* points = of_y ? p.y : p.x;
  const int64_t at = of_y ? (b * p.M + row - p.N) * p.D + d : (b * p.N + row) * p.D + d;
  return points == nullptr ? 0 : load_element(p.dtype, points, at);
}

// At least one, so that there is a block for each problem.
WGK_HOST_DEVICE int64_t column_groups(int64_t D) { return D == 0 ? 1 : ceil_div(D, kColumns); }

// The sums of a slice of the rows, of 32 columns; means if there is one slice. Clears `largest` for centre_kernel.
__global__ void __launch_bounds__(kColumns* kRowLanes) sum_rows_kernel(PairPoints points) {
  WGK_SHARED(double, sums, kColumns * kRowLanes);
  const CentredPoints& p = blockIdx.y == 0 ? points.z : points.along;
  const int64_t groups = column_groups(p.D), R = p.N + p.M;
  const int64_t d = blockIdx.x % groups * kColumns + threadIdx.x % kColumns;
  const int64_t slice = blockIdx.x / groups % p.slices, b = blockIdx.x / groups / p.slices;
  if (blockIdx.y == 0 && d == 0 && slice == 0 && threadIdx.x == 0) {
    points.largest[b] = 0;
  }
  const int64_t first = slice * kSlice, last = min(R, first + kSlice);
  double sum = 0;
  for (int64_t row = first + threadIdx.x / kColumns; row < last && d < p.D; row += kRowLanes) {
    sum += element(p, b, row, d);
  }
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x < kColumns && d < p.D) {
    for (int k = 1; k < kRowLanes; ++k) {
      sum += sums[threadIdx.x + k * kColumns];
    }
    (p.slices == 1 ? p.origins[b * p.D + d] : p.parts[(slice * p.B + b) * p.D + d]) =
        p.slices == 1 ? sum / static_cast<double>(R) : sum;
  }
}

__global__ void __launch_bounds__(256) add_slices_kernel(PairPoints points) {
  const CentredPoints& p = blockIdx.y == 0 ? points.z : points.along;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, count = p.B * p.D;
  if (at < count) {
    double sum = 0;
    for (int64_t slice = 0; slice < p.slices; ++slice) {
      sum += p.parts[slice * count + at];
    }
    p.origins[at] = sum / static_cast<double>(p.N + p.M);
  }
}

// One point, d-th feature: as a float, and what it is exactly.
__device__ float centre(const CentredPoints& p, bool to_tf32_too, int64_t b, int64_t row, int64_t d, double& exact) {
  exact = d < p.D ? element(p, b, row, d) - p.origins[b * p.D + d] : 0;
  const float rounded = to_tf32_too ? to_tf32(static_cast<float>(exact)) : static_cast<float>(exact);
  if (p.rows != nullptr) {
    p.rows[(b * (p.N + p.M) + row) * p.stride + d] = rounded;
  }
  return rounded;
}

__device__ void centre_row(const PairPoints& points, int64_t at) {
  const CentredPoints& p = points.z;
  const int lane = threadIdx.x % 32;
  const int64_t R = p.N + p.M, b = at / R, row = at % R;
  const bool tf32 = points.precision == MatmulPrecision::tf32;
  double wide = 0, narrow = 0, along_wide = 0, along_narrow = 0;
  for (int64_t d = lane; d < p.stride; d += 32) {
    double z, u;
    const double rounded_z = centre(p, tf32, b, row, d, z);
    wide += z * z;
    narrow += rounded_z * rounded_z;
    if (points.has_along) {
      const double rounded_u = centre(points.along, tf32, b, row, d, u);
      along_wide += z * u;
      along_narrow += rounded_z * rounded_u;
    }
  }
  wide = warp_sum(wide);
  narrow = warp_sum(narrow);
  along_wide = warp_sum(along_wide);
  along_narrow = warp_sum(along_narrow);
  if (lane == 0) {
    points.norms.wide[at] = wide;
    points.norms.narrow[at] = static_cast<float>(narrow);
    if (points.has_along) {
      points.along_norms.wide[at] = along_wide;
      points.along_norms.narrow[at] = static_cast<float>(along_narrow);
    }
    // Floats that are not negative lie in the order of their bits, and a maximum has no order of its terms.
    atomicMax(points.largest + b, __float_as_uint(static_cast<float>(narrow)));
  }
}

// At least two blocks on a multiprocessor: to fit many of them ptxas would spill.
__global__ void __launch_bounds__(kWarps * 32, 2) centre_kernel(PairPoints points) {
  const int64_t rows = points.z.B * (points.z.N + points.z.M);
  const int64_t warp = static_cast<int64_t>(blockIdx.x) * kWarps + threadIdx.x / 32;
  for (int64_t at = warp * kRowsOfWarp; at < min(rows, (warp + 1) * kRowsOfWarp); ++at) {
    centre_row(points, at);
  }
}

}  // namespace

CentredPoints::CentredPoints(Pieces& pieces, DType dtype, int64_t B, int64_t N, int64_t M, int64_t D,
                             const void* x, const void* y)
    : dtype(dtype), B(B), N(N), M(M), D(D), stride(ceil_div(D, kProductStep) * kProductStep), x(x), y(y),
      slices(ceil_div(N + M, kSlice)),
      parts(slices == 1 ? nullptr : pieces.take<double>(slices * B * D)),
      origins(pieces.take<double>(B * D)),
      rows(dtype == DType::float64 ? nullptr : pieces.take<float>(B * (N + M) * stride)) {}

PairPoints::PairPoints(Pieces& pieces, MatmulPrecision precision, const CentredPoints& z)
    : z(z), norms(pieces, z), largest(pieces.take<unsigned>(z.B)), has_along(false), along(), along_norms(),
      precision(z.dtype == DType::float32 ? precision : MatmulPrecision::ieee) {}

void PairPoints::add_along(Pieces& pieces, const CentredPoints& u) {
  has_along = true;
  along = u;
  along_norms = PointProducts(pieces, z);
}

CudaStatus centre_points(CudaStream stream, const PairPoints& points) {
  const CentredPoints& p = points.z;
  const int64_t R = p.N + p.M;
  if (p.B == 0 || R == 0) {
    return 0;
  }
  const auto blocks = [&](int64_t count) {
    return dim3(static_cast<unsigned>(count), points.has_along ? 2 : 1);
  };
  CudaStatus status = WGK_LAUNCH(sum_rows_kernel, blocks(p.B * p.slices * column_groups(p.D)), kColumns * kRowLanes,
                                 0, stream, points);
  if (status == 0 && p.D > 0 && p.slices > 1) {
    status = WGK_LAUNCH(add_slices_kernel, blocks(ceil_div(p.B * p.D, 256)), 256, 0, stream, points);
  }
  if (status == 0) {
    const int64_t rows = kWarps * kRowsOfWarp;
    status = WGK_LAUNCH(centre_kernel, dim3(static_cast<unsigned>(ceil_div(p.B * R, rows))), kWarps * 32, 0, stream,
                        points);
  }
  return status;
}

}  // namespace wgk
