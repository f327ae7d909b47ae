// Atomics on integers, and the device functions that the host's <cmath> lacks.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "engine.h"

namespace simt {

// Float atomics have no fixed order, so there are none.
template <class T>
constexpr bool is_atomic = std::is_same_v<T, int> || std::is_same_v<T, unsigned> ||
                           std::is_same_v<T, unsigned long long>;

template <class T, class F>
T atomic_update(T* address, const F& update) {
  static_assert(is_atomic<T>, "atomics are on int, unsigned and unsigned long long");
  atomic_access(address);
  T old = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (!__atomic_compare_exchange_n(address, &old, update(old), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
  return old;
}

template <class To, class From>
To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(To));
  return to;
}

}  // namespace simt

template <class T, class V>
T atomicAdd(T* address, V value) {
  return simt::atomic_update(address, [=](T old) { return static_cast<T>(old + static_cast<T>(value)); });
}
template <class T, class V>
T atomicMax(T* address, V value) {
  return simt::atomic_update(address, [=](T old) { return std::max(old, static_cast<T>(value)); });
}
template <class T, class V>
T atomicMin(T* address, V value) {
  return simt::atomic_update(address, [=](T old) { return std::min(old, static_cast<T>(value)); });
}
template <class T, class V>
T atomicExch(T* address, V value) {
  return simt::atomic_update(address, [=](T) { return static_cast<T>(value); });
}
template <class T, class V>
T atomicCAS(T* address, V compare, V value) {
  return simt::atomic_update(address,
                             [=](T old) { return old == static_cast<T>(compare) ? static_cast<T>(value) : old; });
}
inline unsigned atomicInc(unsigned* address, unsigned limit) {
  return simt::atomic_update(address, [=](unsigned old) { return old >= limit ? 0 : old + 1; });
}

// ---- loads and stores with a cache hint

template <class T>
T __ldg(const T* p) {
  return *p;
}
template <class T>
T __ldcs(const T* p) {
  return *p;
}
template <class T>
T __ldcg(const T* p) {
  return *p;
}
// Copied: a vector goes where numbers of another type are.
template <class T>
void __stwb(T* p, T value) {
  std::memcpy(p, &value, sizeof(T));
}
template <class T>
void __stcs(T* p, T value) {
  __stwb(p, value);
}
template <class T>
void __stcg(T* p, T value) {
  __stwb(p, value);
}

// ---- arithmetic

using std::max;
using std::min;

inline float rsqrtf(float x) { return static_cast<float>(1 / std::sqrt(static_cast<double>(x))); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }

// Never fused with a neighbour; the shim is compiled without contraction.
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fdiv_rn(float a, float b) { return a / b; }
inline float __frcp_rn(float a) { return 1 / a; }
inline float __fsqrt_rn(float a) { return std::sqrt(a); }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dsub_rn(double a, double b) { return a - b; }
inline double __ddiv_rn(double a, double b) { return a / b; }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }

inline unsigned __float_as_uint(float x) { return simt::bit_cast<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bit_cast<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bit_cast<float>(x); }
inline float __int_as_float(int x) { return simt::bit_cast<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bit_cast<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bit_cast<double>(x); }

inline int __double2hiint(double x) { return static_cast<int>(simt::bit_cast<uint64_t>(x) >> 32); }
inline int __double2loint(double x) { return static_cast<int>(simt::bit_cast<uint64_t>(x)); }
inline double __hiloint2double(int high, int low) {
  return simt::bit_cast<double>(static_cast<uint64_t>(static_cast<unsigned>(high)) << 32 | static_cast<unsigned>(low));
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __ffs(int x) { return __builtin_ffs(x); }
