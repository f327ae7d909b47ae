#include "../core/interpolate.h"

#include "operators.h"

namespace wgk::operators {

// real, fake: [B, D...]; mix: [B], double for float64 samples, else float.
Tensor interpolate(Tensor real, Tensor fake, Tensor mix) {
  const DType dtype = dtype_of(real);
  check_one_device("interpolate", {&real, &fake, &mix});
  STD_TORCH_CHECK(fake.scalar_type() == real.scalar_type() && mix.scalar_type() == wide_type(dtype) &&
                      fake.numel() == real.numel() && mix.numel() == batch(real),
                  "wgan_kernels::interpolate: real, fake and mix do not fit together");
  const auto [real_rows, fake_rows] = matching_rows<2>({real, fake});
  const Tensor mix_row = dense(mix);
  Tensor out = torch::stable::empty_like(real_rows);
  const int64_t B = batch(real), D = features(real);
  const void *x = real_rows.data_ptr(), *y = fake_rows.data_ptr(), *mix_data = mix_row.data_ptr();
  void* out_data = out.mutable_data_ptr();
  on_device_of(
      real, [&] { wgk::interpolate(cpu_isa(), torch_threads, dtype, B, D, x, y, mix_data, out_data); },
      [&](auto stream) { return interpolate_cuda(stream, dtype, B, D, x, y, mix_data, out_data); });
  return in_layout_of(real, real_rows, out);
}

}  // namespace wgk::operators
