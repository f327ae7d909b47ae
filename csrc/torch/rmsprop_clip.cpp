#include "../core/rmsprop_clip.h"

#include <algorithm>

#include "operators.h"

namespace wgk::operators {
namespace {

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
    if ((tensor.is_contiguous() && like.is_contiguous()) || same_steps(tensor, like)) {
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

void check_count(const char* name, const std::vector<Tensor>& params, const std::vector<Tensor>& others, bool needed) {
  STD_TORCH_CHECK(others.size() == params.size() || (!needed && others.empty()), "rmsprop_clip_: ", params.size(),
                  " parameters, but ", others.size(), " ", name);
}

// A gradient or a state, and its parameter.
void check_beside(const char* name, size_t i, const Tensor& param, DType dtype, const Tensor& other) {
  DType other_dtype;
  STD_TORCH_CHECK(find_dtype(other, other_dtype) && other_dtype == dtype, name, "[", i,
                  "] is not of the parameter's dtype");
  const auto sizes = param.sizes(), other_sizes = other.sizes();
  STD_TORCH_CHECK(std::equal(sizes.begin(), sizes.end(), other_sizes.begin(), other_sizes.end()), name, "[", i,
                  "] has not the parameter's shape");
  check_one_device("rmsprop_clip_", {&param, &other});
}

// One float32 or float64 number; none for no tensor.
RmspropNumber number_in(const char* name, const Tensor* tensor, const Tensor& beside) {
  RmspropNumber number{};
  if (tensor != nullptr) {
    STD_TORCH_CHECK(find_dtype(*tensor, number.dtype) && number.dtype <= DType::float32 && tensor->numel() == 1,
                    "rmsprop_clip_: ", name, " must be one number, in float32 or float64");
    check_one_device("rmsprop_clip_", {&beside, tensor});
    number.at = tensor->data_ptr();
  }
  return number;
}

// Whether parameters share memory: stepped at once, threads would write over one another.
bool share_memory(const std::vector<RmspropTensor>& tensors) {
  std::vector<std::pair<const char*, const char*>> spans;
  for (const RmspropTensor& tensor : tensors) {
    const int64_t size = tensor.dtype == DType::float64 ? 8 : tensor.dtype == DType::float32 ? 4 : 2;
    const auto* begin = static_cast<const char*>(tensor.param);
    spans.emplace_back(begin, begin + size * tensor.count);
  }
  std::sort(spans.begin(), spans.end());
  const auto meet = [](const auto& a, const auto& b) { return b.first < a.second && b.first < b.second; };
  return std::adjacent_find(spans.begin(), spans.end(), meet) != spans.end();
}

void count_on_host(const RmspropNumber& number) {
  if (number.dtype == DType::float64) {
    *static_cast<double*>(number.at) += 1;
  } else {
    *static_cast<float*>(number.at) += 1;
  }
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
  check_count("grads", params, grads, moves);
  check_count("square_avgs", params, square_avgs, moves);
  check_count("momentum_buffers", params, momentum_buffers, false);
  check_count("grad_avgs", params, grad_avgs, false);
  check_count("steps", params, steps, false);
  const RmspropStep step{lr, alpha, eps, weight_decay, momentum, maximize ? -1.0 : 1.0, low, high,
                         number_in("lr", lr_tensor ? &*lr_tensor : nullptr, params[0]),
                         number_in("grad_scale", grad_scale ? &*grad_scale : nullptr, params[0]),
                         number_in("found_inf", found_inf ? &*found_inf : nullptr, params[0])};
  Workbench bench;
  std::vector<RmspropTensor> tensors(params.size());
  std::vector<RmspropNumber> steps_on_host;  // those of parameters on a GPU may have stayed on the CPU
  // One tensor after another with all that belongs to it: of very many, none is in a cache any more the next time.
  for (size_t i = 0; i < params.size(); ++i) {
    const Tensor& param = params[i];
    RmspropTensor& tensor = tensors[i];
    STD_TORCH_CHECK(find_dtype(param, tensor.dtype), "params[", i, "] is not a floating tensor");
    STD_TORCH_CHECK(!is_expanded(param), "params[", i, "] is an expanded tensor");
    check_one_device("rmsprop_clip_", {&params[0], &param});
    const Tensor home = bench.home(param);
    const auto beside = [&](const char* name, const std::vector<Tensor>& others, bool written) -> void* {
      if (others.empty()) {
        return nullptr;
      }
      check_beside(name, i, param, tensor.dtype, others[i]);
      return bench.place(others[i], home, written);
    };
    tensor.count = home.numel();
    tensor.param = home.data_ptr();
    tensor.grad = beside("grads", grads, false);
    tensor.square_avg = beside("square_avgs", square_avgs, true);
    tensor.momentum_buffer = beside("momentum_buffers", momentum_buffers, true);
    tensor.grad_avg = beside("grad_avgs", grad_avgs, true);
    tensor.step = {};
    if (!steps.empty()) {
      const bool on_host = steps[i].is_cpu() && !param.is_cpu();
      const RmspropNumber number = number_in("a step", &steps[i], on_host ? steps[i] : param);
      on_host ? steps_on_host.push_back(number) : void(tensor.step = number);
    }
  }
  STD_TORCH_CHECK(steps_on_host.empty() || !found_inf,
                  "rmsprop_clip_: steps on the CPU cannot be counted where found_inf is on a GPU");
  if (stats) {
    STD_TORCH_CHECK(stats->scalar_type() == ScalarType::Long && stats->numel() == 2 && stats->is_contiguous(),
                    "rmsprop_clip_: stats must be two numbers, in int64");
    check_one_device("rmsprop_clip_", {&params[0], &*stats});
  }
  for (const RmspropNumber& number : steps_on_host) {
    count_on_host(number);
  }
  auto* counts = stats ? static_cast<int64_t*>(stats->data_ptr()) : nullptr;
  const int64_t count = static_cast<int64_t>(tensors.size()), at_once = share_memory(tensors) ? 1 : count;
  for (int64_t first = 0; first < count; first += at_once) {
    RmspropTensor* some = tensors.data() + first;
    on_device_of(
        params[0], [&] { rmsprop_clip(cpu_isa(), torch_threads, some, at_once, step, counts); },
        [&](auto stream) { return rmsprop_clip_cuda(stream, some, at_once, step, counts); });
  }
  bench.bring_back();
}

}  // namespace wgk::operators
