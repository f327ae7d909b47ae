#include "kernel_matvec.h"

#include <algorithm>

#include "kernel_matvec_unit.cuh"
#include "reduce.cuh"

namespace wgk {
namespace {

constexpr int64_t kBlocks = 528;  // that fill a large GPU; every split of the columns costs memory

// Products of the rows of the unit with `count` columns, the first of which is the column-th of y.
template <class P, int kN>
WGK_INLINE void multiply_points(const ProductArguments& a, const ProductUnit& unit, int64_t column, int count,
                                const ProductShared<typename P::T>& shared, typename P::T (&s)[kN][4]) {
  using T = typename P::T;
  const CentredPoints& z = a.points.z;
  const int chunks = feature_chunks(z.stride, kFeatures<T>), row = first_row_of_warp<1>();
  auto *const rows = tile_of<P>(shared.rows), *const columns = tile_of<P>(shared.columns);
  T products[1][kN][4] = {};
  for (int q = 0; q < chunks; ++q) {
    const int64_t d = static_cast<int64_t>(q) * kFeatures<T>;
    const int width = static_cast<int>(min(z.stride - d, static_cast<int64_t>(kFeatures<T>)));
    __syncthreads();  // nobody reads the last tile any more
    if (chunks > 1 || column == unit.first * kProductColumns<T>) {
      load_points<P, kProductRows>(z, unit.b, unit.row, unit.count, d, width, rows);
    }
    load_points<P, kProductColumns<T>>(z, unit.b, z.N + column, count, d, width, columns);
    if (q == 0 && thread_in_block() < count) {
      const int64_t at = unit.b * (z.N + z.M) + z.N + column + threadIdx.x;
      shared.norms[threadIdx.x] = product_of<T>(a.points.norms, unit.numbers, at);
      if (a.mixture.has_products) {
        shared.shifts[threadIdx.x] = product_of<T>(a.points.shifts, unit.numbers, at);
      }
    }
    __syncthreads();
    if (row < unit.count) {
      add_dots<P>(rows + row * kTileStride<typename P::Tile>, columns, width, products);
    }
  }
#pragma unroll
  for (int at = 0; at < 4 * kN; ++at) {
    s[at / 4][at % 4] = products[0][at / 4][at % 4];
  }
}

// Rows [column, column + count) of v, and zeros up to kProductColumns.
template <class P>
__device__ void load_columns(const ProductArguments& a, const ProductUnit& unit, int64_t column, int count,
                             typename P::T* tile) {
  using T = typename P::T;
  const DType dtype = a.points.z.dtype == DType::float64 ? DType::float64 : DType::float32;
  for (int k = thread_in_block(); k < kProductColumns<T> * kFeatures<T>; k += kPairThreads) {
    const int row = k / kFeatures<T>, p = k % kFeatures<T>;
    const bool is_there = row < count && unit.p + p < a.P;
    if (p < unit.width) {
      tile[row * kTileStride<T> + p] =
          is_there ? P::rounded(static_cast<T>(load_element(dtype, a.v, (unit.b * a.points.z.M + column + row) * a.P +
                                                                            unit.p + p)))
                   : T{0};
    }
  }
}

template <bool of_products, KernelTerm term, class T, int kN>
WGK_INLINE void evaluate_term(const ProductArguments& a, const ProductShared<T>& shared, const PairSums<T>& sums,
                              const T (&s)[kN][4], T (&w)[kN][4]) {
  for (int c = 0; c < a.mixture.C; ++c) {
    with_stored_kernel<of_products, T>(a.mixture.kind(c), shared.kernels + c, [&](const auto& kernel) {
      using Kernel = std::decay_t<decltype(kernel)>;
#pragma unroll
      for (int at = 0; at < 4 * kN; ++at) {
        const T each = argument_of<Kernel>(s[at / 4][at % 4], sums, at);
        w[at / 4][at % 4] += shared.weights[c] * cuda::pick<term>(kernel(each));
      }
    });
  }
}

// Adds kernels of products, where s are the products of centred points and sums those of their shifts, or of distances,
// where s are their squares and sums those of norms.
template <bool of_products, class T, int kN>
WGK_INLINE void evaluate(const ProductArguments& a, const ProductShared<T>& shared, const PairSums<T>& sums,
                         const T (&s)[kN][4], T (&w)[kN][4]) {
  switch (a.term) {
    case KernelTerm::k:
      return evaluate_term<of_products, KernelTerm::k>(a, shared, sums, s, w);
    case KernelTerm::k_s:
      return evaluate_term<of_products, KernelTerm::k_s>(a, shared, sums, s, w);
    case KernelTerm::k_ss:
      return evaluate_term<of_products, KernelTerm::k_ss>(a, shared, sums, s, w);
    case KernelTerm::k_t:
      return evaluate_term<of_products, KernelTerm::k_t>(a, shared, sums, s, w);
    case KernelTerm::k_st:
      return evaluate_term<of_products, KernelTerm::k_st>(a, shared, sums, s, w);
    case KernelTerm::k_tt:
      return evaluate_term<of_products, KernelTerm::k_tt>(a, shared, sums, s, w);
  }
}

template <class T>
WGK_INLINE void multiply_unit(const ProductArguments& a, const ProductUnit& unit, const ProductShared<T>& shared) {
  constexpr int kN = kProductColumns<T> / 8, kF = kFeatures<T> / 8;
  const CentredPoints& z = a.points.z;
  const int row = first_row_of_warp<1>();
  const int64_t problem = (unit.split * z.B + unit.b) * (a.end - a.begin);
  double* to = a.sums + (problem + unit.row - a.begin + row) * a.stride + unit.p;
  T sums[kF][4] = {};
  int64_t flushed = unit.first;
  for (int64_t tile = unit.first; tile < unit.last; ++tile) {
    const int64_t column = tile * kProductColumns<T>;
    const int count = static_cast<int>(min(z.M - column, static_cast<int64_t>(kProductColumns<T>)));
    T s[kN][4], w[kN][4] = {};
    with_products<T>(a.points, unit.numbers, [&](auto products) {
      multiply_points<decltype(products)>(a, unit, column, count, shared, s);
    });
    __syncthreads();
    with_wide_products<T>(a.points, [&](auto products) {
      load_columns<decltype(products)>(a, unit, column, count, shared.columns);
    });
    __syncthreads();
    if (row >= unit.count) {
      continue;
    }
    const int64_t first = unit.b * (z.N + z.M) + unit.row;
    const auto sums_of = [&](const PointProducts& own, const T* others) {
      return pair_sums(own, unit.numbers, first, row, unit.count, others);
    };
    if (a.mixture.has_products) {
      evaluate<true>(a, shared, sums_of(a.points.shifts, shared.shifts), s, w);
    }
    const PairSums<T> norms = sums_of(a.points.norms, shared.norms);
    subtract_products(norms, T{1}, s);
    clamp_at_zero(s);
    evaluate<false>(a, shared, norms, s, w);
    const int64_t self = a.diagonal ? kNoPair : unit.row - column;
    with_wide_products<T>(a.points, [&](auto products) {
      using P = decltype(products);
      T row_sums[2] = {};
      mask_weights<P>(w, counted_pairs<kN>(row, unit.count, count, self), row_sums);
      add_weighted<P>(w, shared.columns, unit.width, sums);
    });
    if (tile + 1 - flushed == kFlush) {
      flush_sums(sums, to, a.stride, unit.count - row, unit.width, flushed == unit.first);
      flushed = tile + 1;
    }
  }
  flush_sums(sums, to, a.stride, unit.count - row, unit.width, flushed == unit.first);
}

template <class T>
__global__ void __launch_bounds__(kPairThreads, 2) matvec_kernel(const ProductArguments a) {
  WGK_DYN_SHARED(unsigned char, memory);
  ProductUnit unit = product_unit<T>(a);
  unit.numbers = pair_numbers(a.points, a.mixture, unit.b);
  if ((unit.numbers == PairNumbers::wide) != std::is_same_v<T, double>) {
    return;
  }
  const ProductShared<T> shared(memory, a.mixture.C);
  for (int c = thread_in_block(); c < a.mixture.C; c += kPairThreads) {
    store_kernel<T>(a.mixture, c, shared.kernels + c);
    shared.weights[c] = static_cast<T>(a.weights[c]);
  }
  multiply_unit(a, unit, shared);
}

__global__ void __launch_bounds__(kFinishThreads) finish_matvec_kernel(const ProductArguments a) {
  const int64_t at = static_cast<int64_t>(blockIdx.x) * kFinishThreads + threadIdx.x, rows = a.end - a.begin;
  if (at >= a.points.z.B * rows * a.P) {
    return;
  }
  double sum = 0;
  for (int64_t split = 0; split < a.splits; ++split) {
    sum += a.sums[(split * a.points.z.B * rows + at / a.P) * a.stride + at % a.P];
  }
  store_element(a.points.z.dtype == DType::float64 ? DType::float64 : DType::float32, a.out, at, sum);
}

ProductArguments product_arguments(Pieces& pieces, MatmulPrecision precision, const KernelProduct& p) {
  const int64_t stride = ceil_div(p.P, 8) * 8, rows = ceil_div(p.end - p.begin, kProductRows);
  const int64_t units = p.B * rows * ceil_div(p.P, kFeatures<float>);
  const int64_t splits = std::max<int64_t>(1, std::min(ceil_div(p.M, kFeatures<float>),
                                                       kBlocks / std::max<int64_t>(1, units)));
  return {PairPoints(pieces, precision, CentredPoints(pieces, p.dtype, p.B, p.N, p.M, p.D, p.x, p.y)), {}, nullptr,
          p.v, nullptr, p.P, stride, p.begin, p.end, p.diagonal, p.term, rows, splits,
          pieces.take<double>(splits * p.B * (p.end - p.begin) * stride)};
}

template <class T>
CudaStatus launch_product(CudaStream stream, const ProductArguments& a) {
  const int64_t blocks = a.row_tiles * a.splits * a.points.z.B * ceil_div(a.stride, kFeatures<T>);
  return WGK_LAUNCH(matvec_kernel<T>, dim3(static_cast<unsigned>(blocks)), dim3(kPairThreads),
                    ProductShared<T>::bytes(a.mixture.C), stream, a);
}

}  // namespace

int64_t kernel_matvec_cuda_workspace(const KernelProduct& product) {
  Pieces pieces(nullptr);
  product_arguments(pieces, MatmulPrecision::ieee, product);
  return pieces.bytes();
}

CudaStatus kernel_matvec_cuda(CudaStream stream, MatmulPrecision precision, const KernelProduct& product,
                              const KernelMixture& mixture, const double* weights, void* out, void* workspace) {
  Pieces pieces(workspace);
  ProductArguments a = product_arguments(pieces, precision, product);
  const int64_t elements = product.B * (product.end - product.begin) * product.P;
  if (elements == 0) {
    return 0;
  }
  a.mixture = mixture_arguments(mixture);
  a.points.has_products = a.mixture.has_products;
  a.weights = weights;
  a.out = out;
  CudaStatus status = centre_points(stream, a.points);
  if (status == 0 && product.dtype != DType::float64) {
    status = launch_product<float>(stream, a);
  }
  if (status == 0) {
    status = launch_product<double>(stream, a);
  }
  return status != 0 ? status
                     : WGK_LAUNCH(finish_matvec_kernel, dim3(static_cast<unsigned>(ceil_div(elements, kFinishThreads))),
                                  dim3(kFinishThreads), 0, stream, a);
}

}  // namespace wgk
