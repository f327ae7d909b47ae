// Compiles the file named by WGK_KERNELS once per instruction set, each time in a namespace of its own: wgk::plain,
// wgk::avx2, wgk::avx512. Inside, WGK_ISA is that namespace and WGK_VECTOR_BYTES the width of a vector.
// One template, several instruction sets: WGK_PICK(isa, name) then is the one to call.
//
// A build may leave some out (WGK_WITHOUT_AVX2, WGK_WITHOUT_AVX512): isa_is_supported knows of it.
//
// No include guard: each <op>_cpu.cpp includes it once. Headers of the standard library must be included before, so
// that their inline functions are not compiled for an instruction set the machine may lack.

#include <cfloat>
#include <cstring>
#include <type_traits>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "common.h"

#define WGK_ISA plain
#define WGK_VECTOR_BYTES 16
#include WGK_KERNELS
#undef WGK_ISA
#undef WGK_VECTOR_BYTES

#if defined(__x86_64__) && !defined(WGK_WITHOUT_AVX2)
#define WGK_ISA avx2
#define WGK_VECTOR_BYTES 32
#define WGK_F16C 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c")
#endif
#include WGK_KERNELS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef WGK_ISA
#undef WGK_VECTOR_BYTES
#undef WGK_F16C
#define WGK_AVX2 avx2
#else
#define WGK_AVX2 plain
#endif

#if defined(__x86_64__) && !defined(WGK_WITHOUT_AVX512)
#define WGK_ISA avx512
#define WGK_VECTOR_BYTES 64
#define WGK_F16C 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,prefer-vector-width=512")
#endif
#include WGK_KERNELS
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#undef WGK_ISA
#undef WGK_VECTOR_BYTES
#undef WGK_F16C
#define WGK_AVX512 avx512
#else
#define WGK_AVX512 plain
#endif

#define WGK_PICK(isa, ...)                              \
  ((isa) == ::wgk::Isa::avx512 ? WGK_AVX512::__VA_ARGS__ \
   : (isa) == ::wgk::Isa::avx2 ? WGK_AVX2::__VA_ARGS__   \
                               : plain::__VA_ARGS__)
