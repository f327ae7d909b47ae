// Points on a GPU as the pair kernels read them: less the mean of their set [x; y], which leaves distances as they are
// and keeps their digits far from the origin.
#pragma once

#include "kernel_pairs.h"

namespace wgk {

// Gives out pieces of a workspace; of none at all, to learn its size.
class Pieces {
 public:
  explicit Pieces(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class T>
  T* take(int64_t count) {
    T* piece = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + bytes_);
    bytes_ += (count * static_cast<int64_t>(sizeof(T)) + 255) / 256 * 256;
    return piece;
  }
  int64_t bytes() const { return bytes_; }

 private:
  char* memory_;
  int64_t bytes_ = 0;
};

constexpr int64_t kProductStep = 8;  // features, in which products advance

// B sets of points, x: [B, N, D] and y: [B, M, D] of dtype, either of them null for zeros.
struct CentredPoints {
  DType dtype;
  int64_t B, N, M, D;
  int64_t stride;   // of rows: D in whole steps
  const void* x;
  const void* y;
  int64_t slices;   // of the points, whose sums are taken apart
  double* parts;    // [slices, B, D]; null for one slice
  double* origins;  // [B, D]
  float* rows;      // [B, N + M, stride], centred, zeros behind D; null for float64

  CentredPoints() = default;
  CentredPoints(Pieces& pieces, DType dtype, int64_t B, int64_t N, int64_t M, int64_t D, const void* x,
                const void* y);
};

// z . w of each of a set's points z and w.
struct PointProducts {
  double* wide;   // [B, N + M]
  float* narrow;  // [B, N + M], of the points as floats

  PointProducts() = default;
  PointProducts(Pieces& pieces, const CentredPoints& points)
      : wide(pieces.take<double>(points.B * (points.N + points.M))),
        narrow(pieces.take<float>(points.B * (points.N + points.M))) {}
};

// What both pair kernels work on.
struct PairPoints {
  CentredPoints z;
  PointProducts norms;         // |z|^2
  unsigned* largest;           // [B], the bits of the largest narrow norm
  bool has_along;
  CentredPoints along;         // u, a direction of z
  PointProducts along_norms;   // z . u
  MatmulPrecision precision;   // tf32 only where floats were rounded to it

  PairPoints(Pieces& pieces, MatmulPrecision precision, const CentredPoints& z);
  void add_along(Pieces& pieces, const CentredPoints& u);
};

// Fills the workspace of `points`.
CudaStatus centre_points(CudaStream stream, const PairPoints& points);

}  // namespace wgk
