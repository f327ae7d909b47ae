// numpy arrays as the core's pointers, for the test modules of the core and of the CUDA kernels. The core trusts its
// pointers, so sizes are checked here. bfloat16 and float16 arrays are uint16 arrays of their bits.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "norm_penalty.h"
#include "weight_clip.h"

namespace py = pybind11;

namespace wgk {

inline void check(bool fits, const std::string& message) {
  if (!fits) {
    throw std::invalid_argument(message);
  }
}

inline DType dtype_named(const std::string& name) {
  const std::pair<const char*, DType> names[] = {{"float64", DType::float64},
                                                 {"float32", DType::float32},
                                                 {"bfloat16", DType::bfloat16},
                                                 {"float16", DType::float16}};
  for (const auto& [known, dtype] : names) {
    if (name == known) {
      return dtype;
    }
  }
  throw std::invalid_argument("unknown dtype " + name);
}

// The dtype of mixing numbers and values beside samples of `dtype`.
inline DType wide(DType dtype) { return dtype == DType::float64 ? DType::float64 : DType::float32; }

inline bool stores(const py::array& array, DType dtype) {
  return dtype == DType::float64   ? py::isinstance<py::array_t<double>>(array)
         : dtype == DType::float32 ? py::isinstance<py::array_t<float>>(array)
                                   : py::isinstance<py::array_t<uint16_t>>(array);
}

inline bool is_aligned(const py::array& array) {
  return reinterpret_cast<uintptr_t>(array.data()) % static_cast<uintptr_t>(array.itemsize()) == 0;
}

inline void check_elements(const py::array& array, DType dtype, int64_t count) {
  check(stores(array, dtype), "an array has the wrong dtype");
  check((array.flags() & py::array::c_style) && is_aligned(array), "an array is not contiguous or not aligned");
  check(array.size() == count, "an array has " + std::to_string(array.size()) + " elements, not " +
                                   std::to_string(count));
}

inline const void* in(const py::array& array, DType dtype, int64_t count) {
  check_elements(array, dtype, count);
  return array.data();
}

inline void* out(py::array& array, DType dtype, int64_t count) {
  check_elements(array, dtype, count);
  return array.mutable_data();  // throws for one that must not be written
}

inline std::pair<int64_t, int64_t> rows(const py::array& array) {
  check(array.ndim() == 2, "an array is not [B, D]");
  return {array.shape(0), array.shape(1)};
}

// (array of any strides, dtype name) pairs.
using NamedArrays = std::vector<std::pair<py::array, std::string>>;

// What clip_weights is handed; refers to the arrays.
class ClipTensors {
 public:
  explicit ClipTensors(NamedArrays& arrays) : sizes_(arrays.size()), strides_(arrays.size()), tensors_(arrays.size()) {
    for (size_t t = 0; t < arrays.size(); ++t) {
      py::array& array = arrays[t].first;
      const DType dtype = dtype_named(arrays[t].second);
      check(stores(array, dtype) && is_aligned(array), "an array has the wrong dtype or is not aligned");
      for (py::ssize_t d = 0; d < array.ndim(); ++d) {
        check(array.strides(d) % array.itemsize() == 0, "a stride is not a number of elements");
        check(array.strides(d) != 0 || array.shape(d) <= 1, "elements overlap");
        sizes_[t].push_back(array.shape(d));
        strides_[t].push_back(array.strides(d) / array.itemsize());
      }
      tensors_[t] = {array.mutable_data(), dtype, array.ndim(), sizes_[t].data(), strides_[t].data()};
    }
  }

  const ClipTensor* data() const { return tensors_.data(); }
  int64_t count() const { return static_cast<int64_t>(tensors_.size()); }

 private:
  std::vector<std::vector<int64_t>> sizes_, strides_;
  std::vector<ClipTensor> tensors_;
};

// NormPenalty, of each module its own: two may be loaded at once.
inline void bind_settings(py::module_& m) {
  py::class_<NormPenalty>(m, "NormPenalty", py::module_local())
      .def(py::init([](double target, bool one_sided, const std::string& reduction, double weight) {
        check(reduction == "none" || reduction == "mean" || reduction == "sum", "unknown reduction " + reduction);
        const Reduction reduce = reduction == "none"   ? Reduction::none
                                 : reduction == "mean" ? Reduction::mean
                                                       : Reduction::sum;
        return NormPenalty{target, one_sided, reduce, weight};
      }));
}

inline int64_t values_of(const NormPenalty& penalty, int64_t B) {
  return penalty.reduction == Reduction::none ? B : 1;
}

}  // namespace wgk
