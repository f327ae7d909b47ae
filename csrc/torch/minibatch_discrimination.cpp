#include "../core/minibatch_discrimination.h"

#include "operators.h"

namespace wgk::operators {
namespace {

// m has to be dense, and outlive what is returned.
ProjectedBatch projected(const Tensor& m, int64_t begin, int64_t end) {
  STD_TORCH_CHECK(m.dim() == 3, "wgan_kernels::minibatch_discrimination: m is not [B, F, K]");
  const int64_t B = m.size(0), last = end < 0 ? B : end;
  STD_TORCH_CHECK(0 <= begin && begin <= last && last <= B,
                  "wgan_kernels::minibatch_discrimination: begin and end are not rows of m");
  return {dtype_of(m), B, m.size(1), m.size(2), begin, last, m.data_ptr()};
}

Tensor empty_rows(const Tensor& m, const ProjectedBatch& batch) {
  return new_dense(m, {batch.rows(), batch.F}, m.scalar_type());
}

void check_grad(const Tensor& grad_o, const Tensor& m, const ProjectedBatch& batch) {
  STD_TORCH_CHECK(grad_o.scalar_type() == m.scalar_type() && grad_o.dim() == 2 && grad_o.size(0) == batch.rows() &&
                      grad_o.size(1) == batch.F,
                  "wgan_kernels::minibatch_discrimination: grad_o does not fit m");
  check_one_device("minibatch_discrimination", {&m, &grad_o});
}

}  // namespace

Tensor minibatch_discrimination(Tensor m, int64_t begin, int64_t end) {
  const Tensor dense_m = dense(m);
  const ProjectedBatch batch = projected(dense_m, begin, end);
  Tensor o = empty_rows(m, batch);
  void* out = o.mutable_data_ptr();
  on_device_of(
      m, [&] { wgk::minibatch_discrimination(cpu_isa(), torch_threads, batch, out); },
      [&](auto stream) { return minibatch_discrimination_cuda(stream, batch, out); });
  return o;
}

Tensor minibatch_discrimination_backward(Tensor grad_o, Tensor m, int64_t begin, int64_t end) {
  const Tensor dense_m = dense(m), dense_grad = dense(grad_o);
  const ProjectedBatch batch = projected(dense_m, begin, end);
  check_grad(grad_o, m, batch);
  Tensor grad_m = new_dense(m, {batch.B, batch.F, batch.K}, m.scalar_type());
  const void* by_o = dense_grad.data_ptr();
  void* out = grad_m.mutable_data_ptr();
  on_device_of(
      m, [&] { wgk::minibatch_discrimination_backward(cpu_isa(), torch_threads, batch, by_o, out); },
      [&](auto stream) { return minibatch_discrimination_backward_cuda(stream, batch, by_o, out); });
  return grad_m;
}

std::tuple<Tensor, Tensor> minibatch_discrimination_double_backward(Tensor grad_grad_m, Tensor grad_o, Tensor m,
                                                                    int64_t begin, int64_t end) {
  const Tensor dense_m = dense(m), dense_grad = dense(grad_o), dense_along = dense(grad_grad_m);
  const ProjectedBatch batch = projected(dense_m, begin, end);
  check_grad(grad_o, m, batch);
  STD_TORCH_CHECK(grad_grad_m.scalar_type() == m.scalar_type() && grad_grad_m.numel() == m.numel(),
                  "wgan_kernels::minibatch_discrimination_double_backward: grad_grad_m does not fit m");
  check_one_device("minibatch_discrimination_double_backward", {&m, &grad_grad_m});
  Tensor grad_grad_o = empty_rows(m, batch);
  Tensor grad_m = new_dense(m, {batch.B, batch.F, batch.K}, m.scalar_type());
  const void *by_o = dense_grad.data_ptr(), *along = dense_along.data_ptr();
  void *by_o_out = grad_grad_o.mutable_data_ptr(), *out = grad_m.mutable_data_ptr();
  on_device_of(
      m,
      [&] {
        wgk::minibatch_discrimination_double_backward(cpu_isa(), torch_threads, batch, along, by_o, by_o_out, out);
      },
      [&](auto stream) {
        return minibatch_discrimination_double_backward_cuda(stream, batch, along, by_o, by_o_out, out);
      });
  return {grad_grad_o, grad_m};
}

}  // namespace wgk::operators
