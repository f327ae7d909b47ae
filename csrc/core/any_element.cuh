// Elements of a dtype that is known only at run time.
#pragma once

#include "elements.cuh"

namespace wgk {

// Calls f with a value of the storage type.
template <class F>
WGK_DEVICE void with_device_type(DType dtype, const F& f) {
  switch (dtype) {
    case DType::float64:
      return f(double{});
    case DType::float32:
      return f(float{});
    case DType::bfloat16:
      return f(bfloat16{});
    case DType::float16:
      return f(float16{});
  }
}

__device__ inline double load_element(DType dtype, const void* from, int64_t at) {
  double value = 0;
  with_device_type(dtype, [&](auto type) { value = widen(static_cast<const decltype(type)*>(from)[at]); });
  return value;
}

__device__ inline void store_element(DType dtype, void* to, int64_t at, double value) {
  with_device_type(dtype, [&](auto type) {
    using T = decltype(type);
    static_cast<T*>(to)[at] = narrow<T>(static_cast<Wide<T>>(value));
  });
}

}  // namespace wgk
