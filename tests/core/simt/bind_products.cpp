// The products of pair_tiles.cuh by themselves, one tile of 16 rows for each warp against one of 8 columns.
#include "binding.h"
#include "pair_tiles.cuh"

namespace wgk {
namespace {

constexpr int kRows = 16 * kPairWarps;

template <class S>
__device__ void copy_tile(const S* from, int rows, int width, S* tile) {
  for (int k = thread_in_block(); k < rows * width; k += kPairThreads) {
    tile[k / width * kTileStride<S> + k % width] = from[k];
  }
}

// dots = a b^T, then weighted = dots b, of the first 8 features of b. a: [kRows, width], b: [8, width], dots: [kRows, 8],
// weighted: [kRows, 8].
template <class P>
__global__ void products_kernel(const typename P::Tile* a, const typename P::Tile* b, int width, typename P::T* dots,
                                typename P::T* weighted) {
  using T = typename P::T;
  using S = typename P::Tile;
  WGK_SHARED(S, rows, kRows * kTileStride<S>);
  WGK_SHARED(S, columns, 8 * kTileStride<S>);
  copy_tile(a, kRows, width, rows);
  copy_tile(b, 8, width, columns);
  __syncthreads();
  T sums[1][1][4] = {}, moved[1][4] = {};
  add_dots<P>(rows + first_row_of_warp<1>() * kTileStride<S>, columns, width, sums);
  add_weighted<typename P::Weighted>(sums[0], columns, 8, moved);
  for (int e = 0; e < 4; ++e) {
    const int at = (first_row_of_warp<1>() + lane_group() + e / 2 * 8) * 8 + 2 * lane_in_group() + e % 2;
    dots[at] = sums[0][0][e];
    weighted[at] = moved[0][e];
  }
}

template <class P>
void multiply(const Run& run, DType dtype, const py::array& a, const py::array& b, py::array& dots,
              py::array& weighted) {
  using S = typename P::Tile;
  using T = typename P::T;
  const int width = static_cast<int>(b.shape(1));
  check(width % P::kStep == 0 && width <= kFeatures<S>, "not such a width");
  const auto* left = static_cast<const S*>(in(a, dtype, kRows * width));
  const auto* right = static_cast<const S*>(in(b, dtype, 8 * width));
  auto* result = static_cast<T*>(out(dots, wide(dtype), kRows * 8));
  auto* moved = static_cast<T*>(out(weighted, wide(dtype), kRows * 8));
  launch(run, [&] {
    return WGK_LAUNCH(products_kernel<P>, 1, kPairThreads, 0, nullptr, left, right, width, result, moved);
  });
}

const Binding bind_products([](py::module_& m) {
  m.def("tile_products", [](const Run& run, const std::string& dtype_name, bool tf32, const py::array& a,
                            const py::array& b, py::array dots, py::array weighted) {
    const DType dtype = dtype_named(dtype_name);
    const auto with = [&](auto products) { multiply<decltype(products)>(run, dtype, a, b, dots, weighted); };
    switch (dtype) {
      case DType::float64:
        return with(DoubleProducts{});
      case DType::float32:
        return tf32 ? with(Tf32Products{}) : with(FloatProducts{});
      case DType::bfloat16:
        return with(HalfProducts<bfloat16>{});
      case DType::float16:
        return with(HalfProducts<float16>{});
    }
  });
});

}  // namespace
}  // namespace wgk
