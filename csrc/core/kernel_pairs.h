// What the tile kernels of kernel_sums and kernel_matvec are handed.
#pragma once

#include "common.h"

namespace wgk {

// Values on the wire between Python and here: add at the end.
enum class KernelKind : int64_t { rbf, inverse_multiquadric };
constexpr int64_t kKernelKinds = 2;

// In the order of KernelTerms.
enum class KernelTerm : int64_t { k, k_s, k_ss, k_t, k_st, k_tt };
constexpr int64_t kKernelTerms = 6;

// The squared distance over which a kernel function changes.
WGK_HOST_DEVICE inline double distance_scale(KernelKind kind, double theta) {
  return kind == KernelKind::rbf ? 2 * theta * theta : theta;
}

// Whether float has digits enough for the squared distances of points whose squared norms are at most `largest`: they
// are differences of those norms, which may be `most` times the scale. And a kernel's constants have to stay in the
// range of float.
WGK_HOST_DEVICE inline bool float_distances_suffice(float largest, KernelKind kind, double theta, double most = 256) {
  const double scale = distance_scale(kind, theta);
  return !(largest > most * scale || scale < 1e-30 || scale > 1e30);
}

constexpr int64_t kMaxComponents = 32;  // of a mixture on a GPU

// How float32 points are multiplied on a GPU: with the digits of float32 (three products in TF32), or in TF32 alone.
enum class MatmulPrecision { ieee, tf32 };

// A sum of C kernel functions. On a GPU the kinds stay in host memory, and the rest is in device memory.
struct KernelMixture {
  int64_t C;
  const int64_t* kinds;        // [C] of KernelKind
  const double* thetas;        // [C]
  const double* along_thetas;  // [C] direction of a tangent, or null
};

// values: sums alone. gradients: the weights of the gradients too. tangents: the derivatives of both.
enum class PairMode { values, gradients, tangents };

// Points are packed and visited in tiles of this many.
constexpr int64_t kTile = 96;

// One tile of packed points (pair_tiles.h), and where its part of the gradient is summed.
template <class T>
struct PairTile {
  int64_t count;
  bool of_y;
  const T* rows;
  const T* panels;
  const T* norms;         // [kTile] |z|^2
  const T* along_rows;    // the same of u, a direction of z, for tangents
  const T* along_panels;
  const T* along_norms;   // [kTile] z . u
  double* sums;           // [kTile, stride] sum_j w_ij z_j; null where no gradient is wanted
  double* w_sums;         // [kTile] sum_j w_ij
  double* along_w_sums;   // of the tangent's weights of u
};

}  // namespace wgk
