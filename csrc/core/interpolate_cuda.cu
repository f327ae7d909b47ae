#include "combine.cuh"
#include "interpolate.h"

namespace wgk {
namespace {

template <class T>
struct MixFactors {
  const Wide<T>* mix;  // [B]

  // 1 - mix is exact in double and rounded once to the computing type, as a subtraction there would be.
  WGK_DEVICE Factors operator()(int64_t row) const { return {mix[row], 1.0 - mix[row]}; }
};

}  // namespace

CudaStatus interpolate_cuda(CudaStream stream, DType dtype, int64_t B, int64_t D, const void* real, const void* fake,
                            const void* mix, void* out) {
  return with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const MixFactors<T> factors{static_cast<const Wide<T>*>(mix)};
    return combine<T, true>(stream, B, D, factors, static_cast<const T*>(real), static_cast<const T*>(fake),
                            static_cast<T*>(out));
  });
}

}  // namespace wgk
