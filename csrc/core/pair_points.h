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

constexpr bool is_half(DType dtype) { return dtype == DType::bfloat16 || dtype == DType::float16; }

// Features, in which products advance.
constexpr int64_t product_step(DType dtype) { return is_half(dtype) ? 16 : 8; }

// Of the d-th feature of a slice of the points.
struct FeatureRange {
  double sum;
  float lowest, largest;
};

// B sets of points, x: [B, N, D] and y: [B, M, D] of dtype, either of them null for zeros.
struct CentredPoints {
  DType dtype;
  int64_t B, N, M, D;
  int64_t stride;         // of rows: D in whole steps
  const void* x;
  const void* y;
  int64_t slices;         // of the points, whose ranges are taken apart
  FeatureRange* parts;    // [slices, B, D]; null for one slice
  double* origins;        // [B, D], the means
  float* rows;            // [B, N + M, stride], less the means, zeros behind D; null for float64
  double* exact_origins;  // [B, D], means or zeros, that leave the points exact; null unless dtype is of half width
  void* exact_rows;       // [B, N + M, stride] of dtype, the points less those; null likewise

  CentredPoints() = default;
  CentredPoints(Pieces& pieces, DType dtype, int64_t B, int64_t N, int64_t M, int64_t D, const void* x,
                const void* y);
};

// z . w of each of a set's points z and w.
struct PointProducts {
  double* wide;   // [B, N + M]
  float* narrow;  // [B, N + M], of `rows`
  float* exact;   // [B, N + M], of `exact_rows`; null without them

  PointProducts() = default;
  PointProducts(Pieces& pieces, const CentredPoints& points, bool has_exact);
};

// What the pairs of one problem are computed from: `exact_rows`, `rows`, or the points in double.
//
// Half-width floats on tensor cores are exact, but less a mean they are not: a bfloat16 number then has more than 8
// bits, and rounded to 8 it would lose what tells points apart. Where all points lie between half a number of the dtype
// and twice that number, though, their differences from it are numbers of the dtype (Sterbenz). Such a mean is taken
// off; others, at most about twice the largest deviation from them, stay. So data of mean 100 and standard deviation
// 0.01 keep every digit that their dtype gave them. Where norms are then too large for float (float_suffices),
// centred points in float take over, and then double. Kernels of inner products, which need one mean for all features,
// do without exact numbers.
enum class PairNumbers { exact, narrow, wide };

// What both pair kernels work on. With o and p for the means that z and u are less, products of the points as they came
// are x_i . x_j = z_i . z_j + shift_i + shift_j.
struct PairPoints {
  CentredPoints z;
  PointProducts norms;         // |z|^2
  unsigned* largest;           // [B], the bits of the largest narrow norm
  unsigned* largest_exact;     // [B], the same of exact norms; null without them
  bool has_along;
  CentredPoints along;         // u, a direction of z
  PointProducts along_norms;   // z . u
  bool has_products;           // whether anybody asks for those of the points as they came, hence for
  double* origin;              // [B], |o|^2
  PointProducts shifts;        // z . o + |o|^2 / 2
  PointProducts along_shifts;  // u . o + z . p + o . p
  MatmulPrecision precision;   // tf32 only where floats were rounded to it

  PairPoints(Pieces& pieces, MatmulPrecision precision, const CentredPoints& z);
  void add_along(Pieces& pieces, const CentredPoints& u);
};

// Fills the workspace of `points`.
CudaStatus centre_points(CudaStream stream, const PairPoints& points);

}  // namespace wgk
