// What the operators over pairs of points share: their arguments, checked and dense, on any device.
#pragma once

#include "../core/kernel_pairs.h"
#include "adapter.h"

namespace wgk {

// B problems of one size: x [N, D] or [B, N, D], y [M, D] or [B, M, D].
struct Points {
  Tensor x, y;
  int64_t B, N, M, D;
  DType dtype;
  bool has_problems;

  Points(const char* name, const Tensor& x_in, const Tensor& y_in);

  // A dense tensor, not initialised; with problems, [B, tail...].
  Tensor empty(std::vector<int64_t> tail, ScalarType type) const;

  // Room for a gradient by `rows` points, or a tensor without elements where it is not wanted.
  Tensor gradient(bool wanted, int64_t rows, ScalarType type) const {
    return wanted ? empty({rows, D}, type) : new_dense(x, {0}, type);
  }
};

// A sum of C kernel functions: kinds and shapes on the host, params [C, Q] on the device of the points. thetas: the
// parameters that the kernel functions take, [C].
struct Mixture {
  std::vector<int64_t> kinds;
  std::vector<double> shapes;
  Tensor params, thetas;
  int64_t C, Q;

  Mixture(const char* name, const Tensor& params_in, std::vector<int64_t> kinds_in, std::vector<double> shapes_in);

  KernelMixture core() const;
};

// The first column of params [C, Q], or of a direction of them, dense: [C].
Tensor first_column(const Tensor& params);

inline const double* doubles(const Tensor& tensor) { return static_cast<const double*>(tensor.data_ptr()); }
inline double* mutable_doubles(const Tensor& tensor) { return static_cast<double*>(tensor.mutable_data_ptr()); }

// a * b, of one shape.
Tensor multiply(const Tensor& a, const Tensor& b);

// The end of a range within `rows` rows; -1 stands for all of them.
int64_t range_end(const char* name, int64_t begin, int64_t end, int64_t rows);

}  // namespace wgk
