// What rmsprop_clip is handed, from numpy arrays.
#pragma once

#include "arrays.h"
#include "rmsprop_clip.h"

namespace wgk {

// A float32 or float64 array of one element; None for none.
inline RmspropNumber rmsprop_number(const py::object& object) {
  if (object.is_none()) {
    return {};
  }
  auto array = object.cast<py::array>();
  const DType dtype = stores(array, DType::float64) ? DType::float64 : DType::float32;
  return {dtype, out(array, dtype, 1)};
}

// (dtype name, param, grad, square_avg, momentum_buffer, grad_avg, step); all but the first two may be None.
using RmspropArrays = std::vector<std::tuple<std::string, py::array, py::object, py::object, py::object, py::object,
                                             py::object>>;

inline std::vector<RmspropTensor> rmsprop_tensors(RmspropArrays& arrays) {
  std::vector<RmspropTensor> tensors;
  for (auto& [name, param, grad, square_avg, momentum_buffer, grad_avg, step] : arrays) {
    const DType dtype = dtype_named(name);
    const int64_t count = param.size();
    const auto beside = [&](const py::object& object) -> void* {
      if (object.is_none()) {
        return nullptr;
      }
      auto array = object.cast<py::array>();
      return out(array, dtype, count);
    };
    check(grad.is_none() == square_avg.is_none(), "a gradient without its average, or the other way round");
    tensors.push_back({dtype, count, out(param, dtype, count), beside(grad), beside(square_avg),
                       beside(momentum_buffer), beside(grad_avg), rmsprop_number(step)});
  }
  return tensors;
}

// lr, alpha, eps, weight_decay, momentum, grad_factor, low, high; then lr, grad_scale and found_inf as arrays or None.
inline RmspropStep rmsprop_step(const std::vector<double>& numbers, const std::vector<py::object>& arrays) {
  check(numbers.size() == 8 && arrays.size() == 3, "not the numbers of a step");
  return {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6], numbers[7],
          rmsprop_number(arrays[0]), rmsprop_number(arrays[1]), rmsprop_number(arrays[2])};
}

inline int64_t* rmsprop_stats(py::object& stats) {
  if (stats.is_none()) {
    return nullptr;
  }
  auto array = stats.cast<py::array>();
  check(py::isinstance<py::array_t<int64_t>>(array) && array.size() == 2, "stats are not two of int64");
  return static_cast<int64_t*>(array.mutable_data());
}

}  // namespace wgk
