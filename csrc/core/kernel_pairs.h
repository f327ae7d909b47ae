// What the tile kernels of kernel_sums and kernel_matvec are handed.
#pragma once

#include "common.h"

namespace wgk {

// Values on the wire between Python and here: add at the end.
enum class KernelKind : int64_t {
  rbf, inverse_multiquadric, rational_quadratic, laplacian, matern32, matern52, energy, polynomial
};
constexpr int64_t kKernelKinds = 8;

// Of inner products x.y, and not of distances.
WGK_HOST_DEVICE constexpr bool is_of_products(KernelKind kind) { return kind == KernelKind::polynomial; }

// In the order of KernelTerms.
enum class KernelTerm : int64_t { k, k_s, k_ss, k_t, k_st, k_tt };
constexpr int64_t kKernelTerms = 6;

// The squared distance over which a kernel function of distances changes; 0 where that is no distance at all, as the
// function has a cusp.
WGK_HOST_DEVICE inline double distance_scale(KernelKind kind, double theta, double shape) {
  switch (kind) {
    case KernelKind::rbf:
      return 2 * theta * theta;
    case KernelKind::rational_quadratic:
      return 2 * theta * theta * (shape < 1 ? shape : 1);
    case KernelKind::matern32:
      return theta * theta * 2 / 3;
    case KernelKind::matern52:
      return theta * theta;
    case KernelKind::inverse_multiquadric:
      return theta;
    default:
      return 0;
  }
}

// Of points less their mean: the largest squared norm, and that of the mean.
struct PointSizes {
  float largest;
  double origin;
};

// Whether float has digits enough for a kernel function. Squared distances are differences of squared norms, which may
// be `most` times the scale over which the function changes. Inner products must not drown in the one of the mean with
// itself, nor their powers leave the range of float.
WGK_HOST_DEVICE inline bool float_suffices(const PointSizes& sizes, KernelKind kind, double theta, double shape,
                                           double most = 256) {
  if (is_of_products(kind)) {
    const double base = 2 * (sizes.largest + sizes.origin) + (theta < 0 ? -theta : theta);
    double power = 1;
    for (int i = 0; i < static_cast<int>(shape); ++i) {
      power *= base;
    }
    return !(sizes.origin > 16.0 * sizes.largest || power > 1e30 || (power < 1e-25 && base != 0));
  }
  const double scale = distance_scale(kind, theta, shape);
  return !(sizes.largest > most * scale || scale < 1e-30 || scale > 1e30);
}

// Points nearer to each other than rounding can tell, by the sum of their squared norms, are taken to coincide by the
// functions of the distance itself, whose derivatives would make much of the difference.
constexpr double kCoincident = 0x1p-46;

constexpr int64_t kMaxComponents = 32;  // of a mixture on a GPU

// How float32 points are multiplied on a GPU: with the digits of float32 (three products in TF32), or in TF32 alone.
enum class MatmulPrecision { ieee, tf32 };

// A sum of C kernel functions. On a GPU kinds and shapes stay in host memory, and the rest is in device memory.
struct KernelMixture {
  int64_t C;
  const int64_t* kinds;        // [C] of KernelKind
  const double* shapes;        // [C] fixed numbers of the kernel functions that have one
  const double* thetas;        // [C] parameters, by which they are differentiated
  const double* along_thetas;  // [C] direction of a tangent, or null
};

// values: sums alone. gradients: the weights of the gradients too. tangents: the derivatives of both.
enum class PairMode { values, gradients, tangents };

// Points are packed and visited in tiles of this many, or of up to kMostCells times as many, which are visited as cells
// of kTile x kTile pairs: what belongs to a point is then read and written once for so many cells.
constexpr int64_t kTile = 96, kMostCells = 3;

// A sum that keeps what is rounded off, so that terms give the same bits in any order but for cases of about one in 2^50:
// with gradients and without them pairs of tiles are visited in different ones.
class WideSum {
 public:
  void add(double term) {
    const double sum = high_ + term, part = sum - high_;
    low_ += (high_ - (sum - part)) + (term - part);
    high_ = sum;
  }
  void add(const WideSum& other) {
    add(other.high_);
    low_ += other.low_;
  }
  double value() const { return high_ - high_ == 0 ? high_ + low_ : high_; }  // infinity and NaN have no rest

 private:
  double high_ = 0, low_ = 0;
};

// One tile of packed points (pair_tiles.h), and where its part of the gradient is summed.
template <class T>
struct PairTile {
  int64_t count;
  bool of_y;
  const T* rows;          // null where they are not kept
  const T* panels;
  const T* norms;         // [points of a tile] |z|^2
  const T* along_rows;    // the same of u, a direction of z, for tangents
  const T* along_panels;
  const T* along_norms;   // [points] z . u
  const T* shifts;        // [points] o . z + |o|^2 / 2 for the mean o, of kernels of products; else null
  const T* along_shifts;
  double* sums;           // [points, stride] sum_j w_ij z_j; null where no gradient is wanted
  double* w_sums;         // [points] sum_j w_ij
  double* along_w_sums;   // of the tangent's weights of u
  double* product_sums;         // [points] the part of kernels of products, of -2 w_ij; null without such kernels
  double* along_product_sums;
};

}  // namespace wgk
