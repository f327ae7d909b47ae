// What bias_leaky_relu is handed: settings as [negative_slope, gain, clamp], arrays as [B, C, S].
#pragma once

#include <vector>

#include "arrays.h"
#include "bias_leaky_relu.h"

namespace wgk {

struct Rectified {
  DType dtype;
  BiasLeakyRelu of;
  int64_t B, C, S;
};

inline Rectified rectified(const std::string& dtype_name, const std::vector<double>& settings, const py::array& array) {
  check(array.ndim() == 3, "an array is not [B, C, S]");
  check(settings.size() == 3, "settings are not negative_slope, gain and clamp");
  return {dtype_named(dtype_name), {settings[0], settings[1], settings[2]}, array.shape(0), array.shape(1),
          array.shape(2)};
}

// One number for each channel; null for None.
inline const void* channels_in(const py::object& array, DType dtype, int64_t C) {
  return array.is_none() ? nullptr : in(array.cast<py::array>(), wide(dtype), C);
}

inline void* channels_out(py::object& array, DType dtype, int64_t C) {
  if (array.is_none()) {
    return nullptr;
  }
  auto found = array.cast<py::array>();
  return out(found, wide(dtype), C);
}

}  // namespace wgk
