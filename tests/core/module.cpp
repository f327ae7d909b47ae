// core_module: every function of csrc/core on numpy arrays, for tests that need no torch.
// The caller names the instruction set and the threads; bfloat16 and float16 arrays are uint16 arrays of their bits.
// The core trusts its pointers, so sizes are checked here.
//
// To add an operator: write bind_<op> below and call it in PYBIND11_MODULE.

#include <pybind11/stl.h>

#include <algorithm>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "bias_leaky_relu.h"
#include "group_norm_arrays.h"
#include "interpolate.h"
#include "kernel_matvec.h"
#include "kernel_sums.h"
#include "minibatch_discrimination.h"
#include "minibatch_stddev.h"
#include "mlp_layers.h"
#include "norm_penalty.h"
#include "pair_arrays.h"
#include "rectifier_arrays.h"
#include "minibatch_arrays.h"
#include "rmsprop_arrays.h"
#include "weight_clip.h"

using namespace wgk;

namespace {

constexpr Isa kIsas[] = {Isa::plain, Isa::avx2, Isa::avx512};

// ---- how to run: the first argument of every operator

struct Run {
  Isa isa;
  int64_t threads;
  bool finely;  // split finer than the grain allows: no kernel may depend on where the ranges begin

  Run(const std::string& name, int64_t threads, bool finely) : isa(), threads(threads), finely(finely) {
    const auto named = [&](Isa candidate) { return name == isa_name(candidate); };
    const auto* found = std::find_if(std::begin(kIsas), std::end(kIsas), named);
    check(found != std::end(kIsas) && isa_is_supported(*found), "not an instruction set of this machine: " + name);
    check(threads > 0, "threads must be positive");
    isa = *found;
  }
};

// The core takes a plain function, which finds here what the call asked for. Null in worker threads: like torch's,
// a parallel loop inside another one is serial.
thread_local const Run* current = nullptr;

struct Use {
  explicit Use(const Run& run) { current = &run; }
  ~Use() { current = nullptr; }
};

// Ranges as torch makes them, each on a thread of its own, so that ThreadSanitizer sees them.
void run_threads(int64_t begin, int64_t end, int64_t grain, void (*body)(int64_t, int64_t, void*), void* context) {
  if (begin >= end) {
    return;
  }
  const int64_t threads = current == nullptr ? 1 : current->threads, least = current->finely ? 1 : grain;
  const int64_t length = std::max(ceil_div(end - begin, threads), least);
  std::vector<std::thread> workers;
  for (int64_t first = begin + length; first < end; first += length) {
    workers.emplace_back(body, first, std::min(first + length, end), context);
  }
  body(begin, std::min(begin + length, end), context);
  for (std::thread& worker : workers) {
    worker.join();
  }
}

// ---- operators

void bind_weight_clip(py::module_& m) {
  m.def("clip_weights", [](const Run& run, NamedArrays arrays, double low, double high) {
    const ClipTensors tensors(arrays);
    const Use use(run);
    clip_weights(run.isa, run_threads, tensors.data(), tensors.count(), low, high);
  });
}

void bind_interpolate(py::module_& m) {
  m.def("interpolate", [](const Run& run, const std::string& dtype_name, const py::array& real, const py::array& fake,
                          const py::array& mix, py::array result) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(real);
    const Use use(run);
    interpolate(run.isa, run_threads, dtype, B, D, in(real, dtype, B * D), in(fake, dtype, B * D),
                in(mix, wide(dtype), B), out(result, dtype, B * D));
  });
}

void bind_bias_leaky_relu(py::module_& m) {
  m.def("bias_leaky_relu", [](const Run& run, const std::string& dtype_name, const std::vector<double>& settings,
                              const py::array& x, const py::object& bias, py::array y) {
    const auto [dtype, of, B, C, S] = rectified(dtype_name, settings, x);
    const Use use(run);
    bias_leaky_relu(run.isa, run_threads, dtype, of, B, C, S, in(x, dtype, x.size()), channels_in(bias, dtype, C),
                    out(y, dtype, x.size()));
  });

  m.def("bias_leaky_relu_backward", [](const Run& run, const std::string& dtype_name,
                                       const std::vector<double>& settings, const py::array& grad_y, const py::array& y,
                                       py::array grad_x, py::object grad_bias) {
    const auto [dtype, of, B, C, S] = rectified(dtype_name, settings, y);
    const Use use(run);
    bias_leaky_relu_backward(run.isa, run_threads, dtype, of, B, C, S, in(grad_y, dtype, y.size()),
                             in(y, dtype, y.size()), out(grad_x, dtype, y.size()), channels_out(grad_bias, dtype, C));
  });

  m.def("bias_leaky_relu_double_backward", [](const Run& run, const std::string& dtype_name,
                                              const std::vector<double>& settings, const py::array& grad_grad_x,
                                              const py::object& grad_grad_bias, const py::array& y,
                                              py::array grad_grad_y) {
    const auto [dtype, of, B, C, S] = rectified(dtype_name, settings, y);
    const Use use(run);
    bias_leaky_relu_double_backward(run.isa, run_threads, dtype, of, B, C, S, in(grad_grad_x, dtype, y.size()),
                                    channels_in(grad_grad_bias, dtype, C), in(y, dtype, y.size()),
                                    out(grad_grad_y, dtype, y.size()));
  });
}

struct OnCpu {
  void operator()(const Run& run, const NormArrays& of, double eps, const GroupNormForward& at) const {
    const Use use(run);
    group_norm(run.isa, run_threads, of.dtype, of.norm, eps, at);
  }
  void operator()(const Run& run, const NormArrays& of, double, const GroupNormBackward& at) const {
    const Use use(run);
    group_norm_backward(run.isa, run_threads, of.dtype, of.norm, at);
  }
  void operator()(const Run& run, const NormArrays& of, double, const GroupNormDoubleBackward& at) const {
    const Use use(run);
    group_norm_double_backward(run.isa, run_threads, of.dtype, of.norm, at);
  }
};

void bind_group_norm(py::module_& m) { def_group_norm<Run>(m, OnCpu{}); }

void bind_norm_penalty(py::module_& m) {
  bind_settings(m);

  m.def("norm_penalty", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                           const py::array& grad, py::array value, py::array norms) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(grad);
    const Use use(run);
    norm_penalty(run.isa, run_threads, dtype, penalty, B, D, in(grad, dtype, B * D),
                 out(value, wide(dtype), values_of(penalty, B)), static_cast<double*>(out(norms, DType::float64, B)));
  });

  m.def("norm_penalty_with_grad", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                                     const py::array& grad, py::array value, py::array norms, py::array grad_x) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(grad);
    const Use use(run);
    norm_penalty_with_grad(run.isa, run_threads, dtype, penalty, B, D, in(grad, dtype, B * D),
                           out(value, wide(dtype), values_of(penalty, B)),
                           static_cast<double*>(out(norms, DType::float64, B)), out(grad_x, dtype, B * D));
  });

  m.def("norm_penalty_backward", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                                    const py::array& grad_value, const py::array& grad, const py::array& norms,
                                    py::array grad_x) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(grad);
    const Use use(run);
    norm_penalty_backward(run.isa, run_threads, dtype, penalty, B, D,
                          in(grad_value, wide(dtype), values_of(penalty, B)), in(grad, dtype, B * D),
                          static_cast<const double*>(in(norms, DType::float64, B)), out(grad_x, dtype, B * D));
  });

  m.def("norm_penalty_double_backward", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                                           const py::array& grad_grad_x, const py::array& grad_value,
                                           const py::array& grad, const py::array& norms, py::array grad_grad_value,
                                           py::array grad_x) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(grad);
    const Use use(run);
    norm_penalty_double_backward(
        run.isa, run_threads, dtype, penalty, B, D, in(grad_grad_x, dtype, B * D),
        in(grad_value, wide(dtype), values_of(penalty, B)), in(grad, dtype, B * D),
        static_cast<const double*>(in(norms, DType::float64, B)),
        out(grad_grad_value, wide(dtype), values_of(penalty, B)), out(grad_x, dtype, B * D));
  });
}

void bind_minibatch_discrimination(py::module_& m) {
  m.def("minibatch_discrimination", [](const Run& run, const std::string& dtype_name, const py::array& z,
                                       const std::pair<int64_t, int64_t>& rows, py::array o) {
    const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
    const Use use(run);
    minibatch_discrimination(run.isa, run_threads, batch, out(o, batch.dtype, batch.rows() * batch.F));
  });

  m.def("minibatch_discrimination_backward", [](const Run& run, const std::string& dtype_name, const py::array& grad_o,
                                                const py::array& z, const std::pair<int64_t, int64_t>& rows,
                                                py::array grad_m) {
    const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
    const Use use(run);
    minibatch_discrimination_backward(run.isa, run_threads, batch, in(grad_o, batch.dtype, batch.rows() * batch.F),
                                      out(grad_m, batch.dtype, z.size()));
  });

  m.def("minibatch_discrimination_double_backward",
        [](const Run& run, const std::string& dtype_name, const py::array& grad_grad_m, const py::array& grad_o,
           const py::array& z, const std::pair<int64_t, int64_t>& rows, py::array grad_grad_o, py::array grad_m) {
          const ProjectedBatch batch = projected_batch(dtype_named(dtype_name), z, rows);
          const int64_t count = batch.rows() * batch.F;
          const Use use(run);
          minibatch_discrimination_double_backward(run.isa, run_threads, batch, in(grad_grad_m, batch.dtype, z.size()),
                                                   in(grad_o, batch.dtype, count),
                                                   out(grad_grad_o, batch.dtype, count),
                                                   out(grad_m, batch.dtype, z.size()));
        });
}

void bind_minibatch_stddev(py::module_& m) {
  m.def("minibatch_stddev", [](const Run& run, const std::string& dtype_name, const py::array& x, py::array value) {
    const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
    const Use use(run);
    minibatch_stddev(run.isa, run_threads, groups, out(value, groups.dtype, groups.rows()));
  });

  m.def("minibatch_stddev_backward", [](const Run& run, const std::string& dtype_name, const py::array& grad_value,
                                        const py::array& x, py::array grad_x) {
    const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
    const Use use(run);
    minibatch_stddev_backward(run.isa, run_threads, groups, in(grad_value, groups.dtype, groups.rows()),
                              out(grad_x, groups.dtype, x.size()));
  });

  m.def("minibatch_stddev_double_backward",
        [](const Run& run, const std::string& dtype_name, const py::array& grad_grad_x, const py::array& grad_value,
           const py::array& x, py::array grad_grad_value, py::array grad_x) {
          const SampleGroups groups = sample_groups(dtype_named(dtype_name), x);
          const Use use(run);
          minibatch_stddev_double_backward(run.isa, run_threads, groups, in(grad_grad_x, groups.dtype, x.size()),
                                           in(grad_value, groups.dtype, groups.rows()),
                                           out(grad_grad_value, groups.dtype, groups.rows()),
                                           out(grad_x, groups.dtype, x.size()));
        });
}

void bind_mlp_critic_loss(py::module_& m) {
  m.def("mlp_critic_loss", [](const Run& run, const std::string& dtype_name, const NormPenalty& penalty,
                              const py::array& mixed, const py::object& real, const py::object& fake,
                              const std::vector<py::array>& weights, const std::vector<py::object>& biases,
                              const std::vector<double>& slopes, py::array value, py::array wasserstein,
                              py::array norms, std::vector<py::array> grad_weights,
                              std::vector<py::object> grad_biases) {
    const DType dtype = dtype_named(dtype_name);
    const auto [B, D] = rows(mixed);
    const std::vector<MlpLayer> layers = mlp_layers(dtype, D, weights, biases, slopes, grad_weights, grad_biases);
    const Use use(run);
    mlp_critic_loss(run.isa, run_threads, dtype, penalty, B, layers.data(), static_cast<int64_t>(layers.size()),
                    critic_samples(dtype, penalty, mixed, real, fake),
                    {out(value, dtype, 1), out(wasserstein, dtype, 1),
                     static_cast<double*>(out(norms, DType::float64, B))});
  });
}

void bind_kernel_sums(py::module_& m) {
  bind_mixture(m);

  m.def("kernel_sums", [](const Run& run, const std::string& dtype_name, const py::array& x, const py::array& y,
                          const std::pair<int64_t, int64_t>& rows, bool diagonal, const Mixture& mixture,
                          py::array sums, py::object theta_sums, py::object grad_x, py::object grad_y) {
    const DType dtype = dtype_named(dtype_name);
    const PointPairs pairs = point_pairs(dtype, x, y, rows.first, rows.second, diagonal);
    const int64_t size = pairs.B * 3 * static_cast<int64_t>(mixture.kinds.size());
    check(static_cast<int64_t>(mixture.weights.size()) == size, "weights are not [B, 3, C]");
    const Use use(run);
    kernel_sums(run.isa, run_threads, pairs, mixture.view(), mixture.weights.data(),
                static_cast<double*>(out(sums, DType::float64, size)),
                static_cast<double*>(out_or_null(theta_sums, DType::float64, size)),
                {dtype, out_or_null(grad_x, dtype, x.size()), out_or_null(grad_y, dtype, y.size())});
  });

  m.def("kernel_sums_tangent", [](const Run& run, const std::string& dtype_name, const py::array& x,
                                  const py::array& y, const py::object& along_x, const py::object& along_y,
                                  const std::pair<int64_t, int64_t>& rows, bool diagonal, const Mixture& mixture,
                                  py::array sums, py::object theta_sums, py::object grad_x, py::object grad_y) {
    const DType dtype = dtype_named(dtype_name);
    const PointPairs pairs = point_pairs(dtype, x, y, rows.first, rows.second, diagonal);
    const int64_t size = pairs.B * 3 * static_cast<int64_t>(mixture.kinds.size());
    check(static_cast<int64_t>(mixture.weights.size()) == size, "weights are not [B, 3, C]");
    check(mixture.along_thetas.size() == mixture.kinds.size(), "along_thetas are missing");
    const auto along = [&](const py::object& array, int64_t count) {
      return array.is_none() ? nullptr : in(array.cast<py::array>(), dtype, count);
    };
    const Use use(run);
    kernel_sums_tangent(run.isa, run_threads, pairs, mixture.view(), along(along_x, x.size()),
                        along(along_y, y.size()), mixture.weights.data(),
                        static_cast<double*>(out(sums, DType::float64, size)),
                        static_cast<double*>(out_or_null(theta_sums, DType::float64, size)),
                        {dtype, out_or_null(grad_x, dtype, x.size()), out_or_null(grad_y, dtype, y.size())});
  });
}

void bind_kernel_matvec(py::module_& m) {
  m.def("kernel_matvec", [](const Run& run, const std::string& dtype_name, const py::array& x, const py::array& y,
                            const py::array& v, const std::pair<int64_t, int64_t>& rows, bool diagonal, int64_t term,
                            const Mixture& mixture, py::array result) {
    const DType dtype = dtype_named(dtype_name);
    const auto [begin, end] = rows;
    check(x.ndim() == 3 && y.ndim() == 3 && v.ndim() == 3 && x.shape(0) == y.shape(0) && x.shape(2) == y.shape(2),
          "x, y and v are not [B, N, D], [B, M, D] and [B, M, P]");
    check(0 <= begin && begin <= end && end <= x.shape(1) && 0 <= term && term < kKernelTerms, "not such rows or term");
    check(mixture.weights.size() == mixture.kinds.size(), "weights are not [C]");
    const int64_t B = x.shape(0), P = v.shape(2);
    const KernelProduct product{B, x.shape(1), y.shape(1), x.shape(2), P, dtype, in(x, dtype, x.size()),
                                in(y, dtype, y.size()), in(v, wide(dtype), B * y.shape(1) * P), begin, end, diagonal,
                                static_cast<KernelTerm>(term)};
    const Use use(run);
    kernel_matvec(run.isa, run_threads, product, mixture.view(), mixture.weights.data(),
                  out(result, wide(dtype), B * (end - begin) * P));
  });
}

void bind_rmsprop_clip(py::module_& m) {
  m.def("rmsprop_clip", [](const Run& run, RmspropArrays arrays, const std::vector<double>& numbers,
                           const std::vector<py::object>& beside, py::object stats) {
    const std::vector<RmspropTensor> tensors = rmsprop_tensors(arrays);
    const Use use(run);
    rmsprop_clip(run.isa, run_threads, tensors.data(), static_cast<int64_t>(tensors.size()),
                 rmsprop_step(numbers, beside), rmsprop_stats(stats));
  });
}

}  // namespace

PYBIND11_MODULE(core_module, m) {
  m.def("supported_isas", [] {
    std::vector<std::string> names;
    for (Isa isa : kIsas) {
      if (isa_is_supported(isa)) {
        names.emplace_back(isa_name(isa));
      }
    }
    return names;
  });
  m.def("chosen_isa", [] { return isa_name(cpu_isa()); });
  py::class_<Run>(m, "Run").def(py::init<const std::string&, int64_t, bool>(), py::arg("isa"), py::arg("threads") = 1,
                                py::arg("finely") = false);
  bind_weight_clip(m);
  bind_group_norm(m);
  bind_interpolate(m);
  bind_bias_leaky_relu(m);
  bind_norm_penalty(m);
  bind_minibatch_discrimination(m);
  bind_minibatch_stddev(m);
  bind_mlp_critic_loss(m);
  bind_kernel_sums(m);
  bind_kernel_matvec(m);
  bind_rmsprop_clip(m);
}
