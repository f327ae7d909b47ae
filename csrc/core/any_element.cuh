// Elements of a dtype that is known only at run time.
#pragma once

#include "launch.h"

namespace wgk {

__device__ inline double load_element(DType dtype, const void* from, int64_t at) {
  switch (dtype) {
    case DType::float64:
      return static_cast<const double*>(from)[at];
    case DType::float32:
      return static_cast<const float*>(from)[at];
    case DType::bfloat16:
      return __uint_as_float(static_cast<unsigned>(static_cast<const uint16_t*>(from)[at]) << 16);
    default:
      return __half2float(__ushort_as_half(static_cast<const uint16_t*>(from)[at]));
  }
}

__device__ inline void store_element(DType dtype, void* to, int64_t at, double value) {
  switch (dtype) {
    case DType::float64:
      static_cast<double*>(to)[at] = value;
      break;
    case DType::float32:
      static_cast<float*>(to)[at] = static_cast<float>(value);
      break;
    case DType::bfloat16:
      static_cast<uint16_t*>(to)[at] = __bfloat16_as_ushort(__float2bfloat16_rn(static_cast<float>(value)));
      break;
    default:
      static_cast<uint16_t*>(to)[at] = __half_as_ushort(__float2half_rn(static_cast<float>(value)));
  }
}

}  // namespace wgk
