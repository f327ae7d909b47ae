#include "../core/rmsprop_clip.h"

#include <algorithm>

#include "operators.h"

namespace wgk::operators {
namespace {

bool same_steps(const Tensor& a, const Tensor& b) {
  for (int64_t d = 0; d < a.dim(); ++d) {
    if (a.stride(d) != b.stride(d) && a.size(d) != 1) {
      return false;
    }
  }
  return true;
}

bool is_expanded(const Tensor& tensor) {
  for (int64_t d = 0; !tensor.is_contiguous() && d < tensor.dim(); ++d) {
    if (tensor.stride(d) == 0 && tensor.size(d) > 1) {
      return true;
    }
  }
  return false;
}

// Whether the elements fill one stretch of memory, each once, in whatever order.
bool is_dense(const Tensor& tensor) {
  if (tensor.is_contiguous()) {
    return true;
  }
  std::vector<std::pair<int64_t, int64_t>> dims;
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    if (tensor.size(d) != 1) {
      dims.emplace_back(tensor.stride(d), tensor.size(d));
    }
  }
  std::sort(dims.begin(), dims.end());
  int64_t expected = 1;
  for (const auto& [stride, size] : dims) {
    if (stride != expected) {
      return false;
    }
    expected *= size;
  }
  return true;
}

// A parameter and its states, as the core walks them: where they lie otherwise, dense copies, brought back at the end.
class Workbench {
 public:
  // The memory of `tensor` in the order of `like`, the parameter's own or a copy's.
  void* place(const Tensor& tensor, const Tensor& like, bool written) {
    if (tensor.get() == like.get() || (tensor.is_contiguous() && like.is_contiguous()) || same_steps(tensor, like)) {
      return tensor.data_ptr();
    }
    Tensor copy = torch::stable::empty_like(like);
    torch::stable::copy_(copy, tensor);
    copies_.push_back({tensor, copy, written});
    return copy.data_ptr();
  }

  // What the states of a parameter are laid out like.
  Tensor home(const Tensor& param) {
    if (is_dense(param)) {
      return param;
    }
    Tensor copy = torch::stable::contiguous(param);
    copies_.push_back({param, copy, true});
    return copy;
  }

  void bring_back() {
    for (Copy& copy : copies_) {
      if (copy.written) {
        torch::stable::copy_(copy.original, copy.dense);
      }
    }
  }

 private:
  struct Copy {
    Tensor original, dense;
    bool written;
  };
  std::vector<Copy> copies_;
};

// Gradients or states, one for each parameter, or none.
void check_beside(const char* name, const std::vector<Tensor>& params, const std::vector<Tensor>& others, bool all) {
  STD_TORCH_CHECK(others.size() == params.size() || (!all && others.empty()), "rmsprop_clip_: ", params.size(),
                  " parameters, but ", others.size(), " ", name);
  for (size_t i = 0; i < others.size(); ++i) {
    DType dtype, of_param;
    STD_TORCH_CHECK(find_dtype(params[i], of_param) && find_dtype(others[i], dtype) && dtype == of_param, name, "[", i,
                    "] is not floating, or not of the parameter's dtype");
    const auto sizes = params[i].sizes(), other_sizes = others[i].sizes();
    STD_TORCH_CHECK(std::equal(sizes.begin(), sizes.end(), other_sizes.begin(), other_sizes.end()), name, "[", i,
                    "] has not the parameter's shape");
    check_one_device("rmsprop_clip_", {&params[0], &params[i], &others[i]});
  }
}

// One float32 or float64 number; none for no tensor.
RmspropNumber number_in(const char* name, const std::optional<Tensor>& tensor, const Tensor& beside) {
  RmspropNumber number{};
  if (tensor) {
    STD_TORCH_CHECK(find_dtype(*tensor, number.dtype) && number.dtype <= DType::float32 && tensor->numel() == 1,
                    "rmsprop_clip_: ", name, " must be one number, in float32 or float64");
    check_one_device("rmsprop_clip_", {&beside, &*tensor});
    number.at = tensor->data_ptr();
  }
  return number;
}

// The counters of a parameter on a GPU may have stayed on the CPU.
RmspropNumber step_in(const Tensor& step, const Tensor& param) {
  RmspropNumber number = number_in("a step", step, step);
  if (step.is_cpu() && !param.is_cpu()) {
    if (number.dtype == DType::float64) {
      *static_cast<double*>(number.at) += 1;
    } else {
      *static_cast<float*>(number.at) += 1;
    }
    return {};
  }
  check_one_device("rmsprop_clip_", {&param, &step});
  return number;
}

}  // namespace

void rmsprop_clip_(const std::vector<Tensor>& params, const std::vector<Tensor>& grads,
                   const std::vector<Tensor>& square_avgs, const std::vector<Tensor>& momentum_buffers,
                   const std::vector<Tensor>& grad_avgs, const std::vector<Tensor>& steps, std::optional<Tensor> stats,
                   std::optional<Tensor> lr_tensor, std::optional<Tensor> grad_scale, std::optional<Tensor> found_inf,
                   double lr, double alpha, double eps, double weight_decay, double momentum, bool maximize,
                   double low, double high) {
  if (params.empty()) {
    return;
  }
  const bool moves = !grads.empty();
  check_beside("grads", params, grads, moves);
  check_beside("square_avgs", params, square_avgs, moves);
  check_beside("momentum_buffers", params, momentum_buffers, false);
  check_beside("grad_avgs", params, grad_avgs, false);
  for (size_t i = 0; i < params.size(); ++i) {
    STD_TORCH_CHECK(!is_expanded(params[i]), "params[", i, "] is an expanded tensor");
  }
  STD_TORCH_CHECK(steps.empty() || steps.size() == params.size(), "rmsprop_clip_: not as many steps as parameters");
  const RmspropStep step{lr, alpha, eps, weight_decay, momentum, maximize ? -1.0 : 1.0, low, high,
                         number_in("lr", lr_tensor, params[0]), number_in("grad_scale", grad_scale, params[0]),
                         number_in("found_inf", found_inf, params[0])};
  Workbench bench;
  std::vector<RmspropTensor> tensors(params.size());
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor home = bench.home(params[i]);
    RmspropTensor& tensor = tensors[i];
    tensor.dtype = dtype_of(home);
    tensor.count = home.numel();
    tensor.param = home.data_ptr();
    tensor.grad = moves ? bench.place(grads[i], home, false) : nullptr;
    tensor.square_avg = moves ? bench.place(square_avgs[i], home, true) : nullptr;
    tensor.momentum_buffer = momentum_buffers.empty() ? nullptr : bench.place(momentum_buffers[i], home, true);
    tensor.grad_avg = grad_avgs.empty() ? nullptr : bench.place(grad_avgs[i], home, true);
    tensor.step = steps.empty() ? RmspropNumber{} : step_in(steps[i], params[i]);
  }
  auto* counts = stats ? static_cast<int64_t*>(stats->data_ptr()) : nullptr;
  const int64_t count = static_cast<int64_t>(tensors.size());
  on_device_of(
      params[0], [&] { rmsprop_clip(cpu_isa(), torch_threads, tensors.data(), count, step, counts); },
      [&](auto stream) { return rmsprop_clip_cuda(stream, tensors.data(), count, step, counts); });
  bench.bring_back();
}

}  // namespace wgk::operators
