// Elements of a dtype that is known only at run time.
#pragma once

#include "elements.cuh"

namespace wgk {

__device__ inline double load_element(DType dtype, const void* from, int64_t at) {
  double value = 0;
  with_type(dtype, [&](auto type) { value = widen(static_cast<const decltype(type)*>(from)[at]); });
  return value;
}

__device__ inline void store_element(DType dtype, void* to, int64_t at, double value) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    static_cast<T*>(to)[at] = narrow<T>(static_cast<Wide<T>>(value));
  });
}

__device__ inline double rounded_to(DType dtype, double value) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    value = widen(narrow<T>(static_cast<Wide<T>>(value)));
  });
  return value;
}

}  // namespace wgk
