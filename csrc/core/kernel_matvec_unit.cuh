// What one block of kernel_matvec works on, and its shared memory.
#pragma once

#include "kernel_matvec.h"
#include "pair_blocks.cuh"

namespace wgk {

constexpr int kProductRows = kPairWarps * 16;

struct ProductArguments {
  PairPoints points;
  MixtureArguments mixture;
  const double* weights;  // [C]
  const void* v;          // [B, M, P]
  void* out;              // [B, end - begin, P]
  int64_t P, stride;      // P in whole steps
  int64_t begin, end;
  bool diagonal;
  KernelTerm term;
  int64_t row_tiles, splits;
  double* sums;           // [splits, B, end - begin, stride]
};

template <class T>
constexpr int kProductColumns = std::is_same_v<T, double> ? 16 : 32;  // as many as leave their pairs room in registers

// Shared memory.
template <class T>
struct ProductShared {
  StoredKernel* kernels;  // [C]
  T* rows;                // [kProductRows, kTileStride]
  T* columns;             // [kProductColumns, kTileStride], of the points, then of v
  T* norms;               // [kProductColumns]
  T* shifts;              // the same
  T* weights;             // [C]

  static int64_t bytes(int64_t C) {
    const int64_t numbers = (kProductRows + kProductColumns<T>) * kTileStride<T> + 2 * kProductColumns<T> + C;
    return C * sizeof(StoredKernel) + numbers * sizeof(T);
  }
  __device__ ProductShared(unsigned char* memory, int C) {
    kernels = reinterpret_cast<StoredKernel*>(memory);
    rows = reinterpret_cast<T*>(kernels + C);
    columns = rows + kProductRows * kTileStride<T>;
    norms = columns + kProductColumns<T> * kTileStride<T>;
    shifts = norms + kProductColumns<T>;
    weights = shifts + kProductColumns<T>;
  }
};

// What one block works on: a tile of rows, a range of tiles of columns, and a chunk of the columns of v.
struct ProductUnit {
  PairNumbers numbers;
  int64_t b, split, row, p;  // the first row and column of v
  int count, width;
  int64_t first, last;
};

template <class T>
__device__ ProductUnit product_unit(const ProductArguments& a) {
  ProductUnit unit;
  const int64_t chunks = ceil_div(a.stride, kFeatures<T>), tiles = ceil_div(a.points.z.M, kProductColumns<T>);
  int64_t k = blockIdx.x;
  unit.p = k % chunks * kFeatures<T>;
  unit.width = static_cast<int>(min(a.stride - unit.p, static_cast<int64_t>(kFeatures<T>)));
  k /= chunks;
  unit.b = k % a.points.z.B;
  k /= a.points.z.B;
  unit.split = k % a.splits;
  unit.row = a.begin + k / a.splits * kProductRows;
  unit.count = static_cast<int>(min(a.end - unit.row, static_cast<int64_t>(kProductRows)));
  unit.first = tiles * unit.split / a.splits;
  unit.last = tiles * (unit.split + 1) / a.splits;
  return unit;
}

}  // namespace wgk
