#include "../core/interpolate.h"

#include "operators.h"

namespace wgk {

// real, fake: [B, D...]; mix: [B], double for float64 samples, else float.
Tensor interpolate_cpu(Tensor real, Tensor fake, Tensor mix) {
  const DType dtype = dtype_of(real);
  STD_TORCH_CHECK(fake.scalar_type() == real.scalar_type() && mix.scalar_type() == wide_type(dtype) &&
                      fake.numel() == real.numel() && mix.numel() == batch(real),
                  "wgan_kernels::interpolate: real, fake and mix do not fit together");
  const auto [real_rows, fake_rows] = matching_rows<2>({real, fake});
  const Tensor mix_row = dense(mix);
  Tensor out = torch::stable::empty_like(real_rows);
  interpolate(cpu_isa(), torch_threads, dtype, batch(real), features(real), real_rows.data_ptr(), fake_rows.data_ptr(),
              mix_row.data_ptr(), out.data_ptr());
  return in_layout_of(real, real_rows, out);
}

}  // namespace wgk
