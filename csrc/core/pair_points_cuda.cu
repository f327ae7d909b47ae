#include "pair_points.h"

#include <cfloat>

#include "point_features.cuh"
#include "products.cuh"
#include "reduce.cuh"

namespace wgk {
namespace {

constexpr int kColumns = 32, kRowLanes = 8;  // of a block that sums rows
constexpr int kSlice = 512;                  // rows that one block sums
constexpr int kWarps = 8, kRowsOfWarp = 4;   // of a block that centres

// At least one, so that there is a block for each problem.
WGK_HOST_DEVICE int64_t column_groups(int64_t D) { return D == 0 ? 1 : ceil_div(D, kColumns); }

__device__ void join(FeatureRange& range, const FeatureRange& other) {
  range.sum += other.sum;
  range.lowest = min(range.lowest, other.lowest);
  range.largest = max(range.largest, other.largest);
}

constexpr FeatureRange kNothing{0, FLT_MAX, -FLT_MAX};

// A number of dtype that leaves exact differences to all numbers of the range: near the mean, or 0. From a mean that is
// not finite every difference is NaN.
__device__ double exact_origin(DType dtype, double mean, const FeatureRange& range) {
  const double origin = rounded_to(dtype, mean), half = origin / 2, twice = origin * 2;
  const bool is_near = origin > 0 ? range.lowest >= half && range.largest <= twice
                                  : range.lowest >= twice && range.largest <= half;
  return is_near || !(fabs(mean) <= DBL_MAX) ? origin : 0;
}

__device__ void store_origins(const CentredPoints& p, int64_t at, const FeatureRange& range) {
  const double mean = range.sum / static_cast<double>(p.N + p.M);
  p.origins[at] = mean;
  if (p.exact_origins != nullptr) {
    p.exact_origins[at] = exact_origin(p.dtype, mean, range);
  }
}

// The ranges of a slice of the rows, of 32 columns; origins if there is one slice. Clears for centre_kernel.
__global__ void __launch_bounds__(kColumns* kRowLanes) sum_rows_kernel(PairPoints points) {
  WGK_SHARED(FeatureRange, ranges, kColumns * kRowLanes);
  const CentredPoints& p = blockIdx.y == 0 ? points.z : points.along;
  const int64_t groups = column_groups(p.D), R = p.N + p.M;
  const int64_t d = blockIdx.x % groups * kColumns + threadIdx.x % kColumns;
  const int64_t slice = blockIdx.x / groups % p.slices, b = blockIdx.x / groups / p.slices;
  if (blockIdx.y == 0 && d == 0 && slice == 0 && threadIdx.x == 0) {
    points.largest[b] = 0;
    if (points.largest_exact != nullptr) {
      points.largest_exact[b] = 0;
    }
  }
  const int64_t first = slice * kSlice, last = min(R, first + kSlice);
  FeatureRange range = kNothing;
  for (int64_t row = first + threadIdx.x / kColumns; row < last && d < p.D; row += kRowLanes) {
    const double x = point_feature(p, b, row, d);
    join(range, {x, static_cast<float>(x), static_cast<float>(x)});
  }
  ranges[threadIdx.x] = range;
  __syncthreads();
  if (threadIdx.x < kColumns && d < p.D) {
    for (int k = 1; k < kRowLanes; ++k) {
      join(range, ranges[threadIdx.x + k * kColumns]);
    }
    if (p.slices == 1) {
      store_origins(p, b * p.D + d, range);
    } else {
      p.parts[(slice * p.B + b) * p.D + d] = range;
    }
  }
}

__global__ void __launch_bounds__(256) add_slices_kernel(PairPoints points) {
  const CentredPoints& p = blockIdx.y == 0 ? points.z : points.along;
  const int64_t at = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x, count = p.B * p.D;
  if (at < count) {
    FeatureRange range = kNothing;
    for (int64_t slice = 0; slice < p.slices; ++slice) {
      join(range, p.parts[slice * count + at]);
    }
    store_origins(p, at, range);
  }
}

// A centred feature, as each kind of PairNumbers has it.
struct Feature {
  double wide, narrow, exact;
};

__device__ Feature centre(const CentredPoints& p, bool to_tf32_too, int64_t b, int64_t row, int64_t d) {
  const int64_t at = (b * (p.N + p.M) + row) * p.stride + d;
  const double x = d < p.D ? point_feature(p, b, row, d) : 0;
  Feature z{d < p.D ? x - p.origins[b * p.D + d] : 0, 0, 0};
  const float narrow = to_tf32_too ? to_tf32(static_cast<float>(z.wide)) : static_cast<float>(z.wide);
  z.narrow = narrow;
  if (p.rows != nullptr) {
    p.rows[at] = narrow;
  }
  if (p.exact_rows != nullptr) {
    z.exact = d < p.D ? x - p.exact_origins[b * p.D + d] : 0;
    store_element(p.dtype, p.exact_rows, at, z.exact);
  }
  return z;
}

__device__ void add_products(Feature& sums, const Feature& z, const Feature& u) {
  sums.wide += z.wide * u.wide;
  sums.narrow += z.narrow * u.narrow;
  sums.exact += z.exact * u.exact;
}

// Floats that are not negative lie in the order of their bits, and a maximum has no order of its terms.
__device__ void raise(unsigned* largest, double norm) { atomicMax(largest, __float_as_uint(static_cast<float>(norm))); }

__device__ void store_products(const PointProducts& products, int64_t at, const Feature& sums) {
  products.wide[at] = sums.wide;
  products.narrow[at] = static_cast<float>(sums.narrow);
  if (products.exact != nullptr) {
    products.exact[at] = static_cast<float>(sums.exact);
  }
}

__device__ Feature warp_sums(const Feature& sums) {
  return {warp_sum(sums.wide), warp_sum(sums.narrow), warp_sum(sums.exact)};
}

// What tells products of the points from those of the centred points.
struct Shift {
  double origin, z, along;
};

__device__ void add_shift(const PairPoints& points, int64_t b, int64_t d, double z, double u, Shift& shift) {
  const double o = points.z.origins[b * points.z.D + d];
  shift.origin += o * o;
  shift.z += o * (z + o / 2);
  if (points.has_along) {
    shift.along += u * o + (z + o) * points.along.origins[b * points.z.D + d];
  }
}

__device__ void store_shift(const PairPoints& points, int64_t b, int64_t at, const Shift& lane) {
  const Shift shift{warp_sum(lane.origin), warp_sum(lane.z), warp_sum(lane.along)};
  if (threadIdx.x % 32 == 0) {
    if (at == b * (points.z.N + points.z.M)) {
      points.origin[b] = shift.origin;
    }
    store_products(points.shifts, at, {shift.z, shift.z, 0});
    if (points.has_along) {
      store_products(points.along_shifts, at, {shift.along, shift.along, 0});
    }
  }
}

__device__ void centre_row(const PairPoints& points, int64_t at) {
  const CentredPoints& p = points.z;
  const int lane = threadIdx.x % 32;
  const int64_t R = p.N + p.M, b = at / R, row = at % R;
  const bool tf32 = points.precision == MatmulPrecision::tf32;
  Feature norms{}, along_norms{};
  Shift shift{};
  for (int64_t d = lane; d < p.stride; d += 32) {
    const Feature z = centre(p, tf32, b, row, d);
    Feature u{};
    add_products(norms, z, z);
    if (points.has_along) {
      u = centre(points.along, tf32, b, row, d);
      add_products(along_norms, z, u);
    }
    if (points.has_products && d < p.D) {
      add_shift(points, b, d, z.wide, u.wide, shift);
    }
  }
  if (points.has_products) {
    store_shift(points, b, at, shift);
  }
  norms = warp_sums(norms);
  along_norms = warp_sums(along_norms);
  if (lane == 0) {
    store_products(points.norms, at, norms);
    raise(points.largest + b, norms.narrow);
    if (points.largest_exact != nullptr) {
      raise(points.largest_exact + b, norms.exact);
    }
    if (points.has_along) {
      store_products(points.along_norms, at, along_norms);
    }
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
    : dtype(dtype), B(B), N(N), M(M), D(D), stride(ceil_div(D, product_step(dtype)) * product_step(dtype)), x(x), y(y),
      slices(ceil_div(N + M, kSlice)),
      parts(slices == 1 ? nullptr : pieces.take<FeatureRange>(slices * B * D)),
      origins(pieces.take<double>(B * D)),
      rows(dtype == DType::float64 ? nullptr : pieces.take<float>(B * (N + M) * stride)),
      exact_origins(is_half(dtype) ? pieces.take<double>(B * D) : nullptr),
      exact_rows(is_half(dtype) ? pieces.take<uint16_t>(B * (N + M) * stride) : nullptr) {}

PointProducts::PointProducts(Pieces& pieces, const CentredPoints& points, bool has_exact)
    : wide(pieces.take<double>(points.B * (points.N + points.M))),
      narrow(pieces.take<float>(points.B * (points.N + points.M))),
      exact(has_exact ? pieces.take<float>(points.B * (points.N + points.M)) : nullptr) {}

PairPoints::PairPoints(Pieces& pieces, MatmulPrecision precision, const CentredPoints& z)
    : z(z), norms(pieces, z, is_half(z.dtype)), largest(pieces.take<unsigned>(z.B)),
      largest_exact(is_half(z.dtype) ? pieces.take<unsigned>(z.B) : nullptr), has_along(false), along(), along_norms(),
      has_products(false), origin(pieces.take<double>(z.B)), shifts(pieces, z, false), along_shifts(),
      precision(z.dtype == DType::float32 ? precision : MatmulPrecision::ieee) {}

void PairPoints::add_along(Pieces& pieces, const CentredPoints& u) {
  has_along = true;
  along = u;
  along_norms = PointProducts(pieces, z, is_half(z.dtype));
  along_shifts = PointProducts(pieces, z, false);
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
