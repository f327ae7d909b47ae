// Kernel functions on the device, a mixture of them as kernels get it, and the numbers that it is computed from.
#pragma once

#include "elements.cuh"
#include "pair_points.h"

#include <cfloat>
#include <cstring>
#include <type_traits>

#define WGK_ISA cuda
#define WGK_INLINE WGK_DEVICE

namespace wgk {
namespace cuda {

constexpr double kLog2E = 1.4426950408889634074;

#ifdef WGK_SIMT
inline float exp2_of_negative(float t) { return t < -126 ? 0 : std::exp2(t); }
inline float square_root(float v) { return v < FLT_MIN ? 0 : std::sqrt(v); }
inline double square_root(double v) { return std::sqrt(v); }
inline double log2_one_plus(double v) { return std::log1p(v) * kLog2E; }
inline float reciprocal(float v) { return 1 / v; }
inline double reciprocal(double v) { return 1 / v; }
#else
// 2^t for t <= 0, 0 below the smallest normal number, within 2 units in the last place.
WGK_INLINE float exp2_of_negative(float t) {
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(t));
  return power;
}
// Within 1 unit in the last place, and 0 of what is below the smallest normal number.
WGK_INLINE float square_root(float v) {
  float root;
  asm("sqrt.approx.ftz.f32 %0, %1;" : "=f"(root) : "f"(v));
  return root;
}
// Within 1 unit in the last place, and without the calls that a division makes for numbers that are not normal.
WGK_INLINE float reciprocal(float v) {
  float inverse;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(v));
  return inverse;
}
WGK_INLINE double reciprocal(double v) {
  double rough;
  asm("rcp.approx.ftz.f64 %0, %1;" : "=d"(rough) : "d"(v));  // 20 bits, which two steps of Newton's make all
  const double better = fma(fma(-v, rough, 1.0), rough, rough);
  const double best = fma(fma(-v, better, 1.0), better, better);
  return rough == 0 ? 0 : best;  // of infinity
}
// Calls: in place these would need more registers than there are, and long to compile.
__device__ __noinline__ inline double square_root(double v) { return sqrt(v); }
__device__ __noinline__ inline double log2_one_plus(double v) { return log1p(v) * kLog2E; }
#endif
// log2(1 + v), within 2 units in the last place. The instruction, lg2.approx, is off by up to 2^-22 between 1 and 2, also
// of a logarithm that is smaller than that, and a power multiplies it by its exponent.
WGK_INLINE float log2_one_plus(float v) { return log1pf(v) * static_cast<float>(kLog2E); }
// Where doubles are rare and slow a call costs no time, and without it their kernels need more registers than there
// are.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 1200
__device__ __noinline__ inline double exp2_of_negative(double t) { return exp2(t); }
#else
WGK_INLINE double exp2_of_negative(double t) { return exp2(t); }
#endif

}  // namespace cuda
}  // namespace wgk

#include "kernel_functions.h"

namespace wgk {

struct MixtureArguments {
  int C;
  bool has_products;           // kernels of inner products among them
  uint8_t kinds[kMaxComponents];
  double shapes[kMaxComponents];
  const double* thetas;        // [C]
  const double* along_thetas;  // [C] or null

  __device__ KernelKind kind(int c) const { return static_cast<KernelKind>(kinds[c]); }
};

inline MixtureArguments mixture_arguments(const KernelMixture& mixture) {
  MixtureArguments arguments{static_cast<int>(mixture.C), false, {}, {}, mixture.thetas, mixture.along_thetas};
  for (int c = 0; c < arguments.C; ++c) {
    arguments.kinds[c] = static_cast<uint8_t>(mixture.kinds[c]);
    arguments.shapes[c] = mixture.shapes[c];
    arguments.has_products |= is_of_products(static_cast<KernelKind>(mixture.kinds[c]));
  }
  return arguments;
}

// A kernel function, made once for a block.
struct alignas(8) StoredKernel {
  unsigned char bytes[32];
};

template <class T>
__device__ void store_kernel(const MixtureArguments& mixture, int c, StoredKernel* stored) {
  cuda::with_kernel<T>(mixture.kind(c), mixture.thetas[c], mixture.shapes[c], [&](const auto& kernel) {
    using Kernel = std::decay_t<decltype(kernel)>;
    static_assert(sizeof(Kernel) <= sizeof(StoredKernel) && std::is_trivially_copyable_v<Kernel>);
    memcpy(stored, &kernel, sizeof(kernel));
  });
}

// Float never has digits enough for those with a cusp (distance_scale), so that there need be no code for them.
template <class Kernel>
constexpr bool kNeedsDouble = false;
template <>
constexpr bool kNeedsDouble<cuda::Laplacian<float>> = true;
template <>
constexpr bool kNeedsDouble<cuda::Energy<float>> = true;

// Calls f with the stored kernel function if it is one of products, or of distances, as asked for.
template <bool of_products, class T, class F>
WGK_INLINE void with_stored_kernel(KernelKind kind, const StoredKernel* stored, const F& f) {
  cuda::with_kernel<T>(kind, 1.0, 1.0, [&](const auto& alike) {
    using Kernel = std::decay_t<decltype(alike)>;
    if constexpr (Kernel::kOfProducts == of_products && !kNeedsDouble<Kernel>) {
      Kernel kernel = alike;
      memcpy(static_cast<void*>(&kernel), stored, sizeof(kernel));
      f(kernel);
    }
  });
}

// Norms over a kernel's scale that leave a mean of kernel values within 2e-6. Tensor cores cut off what the CPU rounds.
constexpr double kFloatDistances = 128;

// Decided here because the host cannot wait for the norms. Like on the CPU, float gives way to double where distances
// or products would drown. Kernels of products know one mean alone, and do without exact numbers.
__device__ inline PairNumbers pair_numbers(const PairPoints& points, const MixtureArguments& mixture, int64_t b) {
  const auto suffices = [&](const unsigned* largest) {
    bool all = largest != nullptr;
    for (int c = 0; all && c < mixture.C; ++c) {
      const PointSizes sizes{__uint_as_float(largest[b]), points.has_products ? points.origin[b] : 0};
      all = float_suffices(sizes, mixture.kind(c), mixture.thetas[c], mixture.shapes[c], kFloatDistances);
    }
    return all;
  };
  return points.z.dtype == DType::float64                            ? PairNumbers::wide
         : !points.has_products && suffices(points.largest_exact) ? PairNumbers::exact
         : suffices(points.largest)                                  ? PairNumbers::narrow
                                                                     : PairNumbers::wide;
}

}  // namespace wgk
