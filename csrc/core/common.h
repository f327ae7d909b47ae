// What every operator of the core shares: element types, the instruction set, and the parallel loop it is handed.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define WGK_HOST_DEVICE __host__ __device__
#else
#define WGK_HOST_DEVICE
#endif

namespace wgk {

enum class DType { float64, float32, bfloat16, float16 };

// Storage types of the half-width floats; conversions are in simd.h.
struct bfloat16 {
  uint16_t bits;
};
struct float16 {
  uint16_t bits;
};

// Calls f with a value of the storage type that dtype names. f runs where it is called: on the host or on the device.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class F>
WGK_HOST_DEVICE decltype(auto) with_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float64:
      return f(double{});
    case DType::float32:
      return f(float{});
    case DType::bfloat16:
      return f(bfloat16{});
    default:
      return f(float16{});
  }
}

enum class Isa { plain, avx2, avx512 };

// The best instruction set of this machine, or the one that WGAN_KERNELS_ISA names; throws std::runtime_error
// when that one is unknown or not supported here. Decided once per process.
Isa cpu_isa();
bool isa_is_supported(Isa isa);
const char* isa_name(Isa isa);

// The caller's thread pool: splits [begin, end) into ranges of at least `grain` and calls body on each.
using ParallelFor = void (*)(int64_t begin, int64_t end, int64_t grain,
                             void (*body)(int64_t begin, int64_t end, void* context), void* context);

template <class F>
void parallel_for(ParallelFor run, int64_t count, int64_t grain, const F& body) {
  run(
      0, count, grain < 1 ? 1 : grain,
      [](int64_t begin, int64_t end, void* context) { (*static_cast<const F*>(context))(begin, end); },
      const_cast<F*>(&body));
}

// A stream of CUDA and the status of a call to it, 0 for success, for code that includes no header of CUDA.
using CudaStream = void*;
using CudaStatus = int;

WGK_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace wgk
