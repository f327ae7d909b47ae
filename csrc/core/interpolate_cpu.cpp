#include "interpolate.h"

#include <algorithm>

#include "rows.h"

#define WGK_KERNELS "row_kernels.h"
#include "for_each_isa.h"

namespace wgk {

void interpolate(Isa isa, ParallelFor run, DType dtype, int64_t B, int64_t D, const void* real, const void* fake,
                 const void* mix, void* out) {
  with_type(dtype, [&](auto type) {
    using T = decltype(type);
    const auto combine = WGK_PICK(isa, combine<T, true>);
    const auto mix_of = static_cast<const plain::Compute<T>*>(mix);
    RowBlocks(B, D).for_each(run, [&](int64_t, int64_t row, int64_t begin, int64_t n) {
      const int64_t at = row * D + begin;
      // 1 - mix is exact in double and rounded once to the computing type, as a subtraction there would be.
      combine(mix_of[row], static_cast<const T*>(real) + at, 1.0 - mix_of[row], static_cast<const T*>(fake) + at,
              static_cast<T*>(out) + at, n, false);
    });
  });
}

}  // namespace wgk
