#include "mlp_critic_loss.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "buffer.h"
#include "mlp_critic_loss_plan.h"
#include "norm_penalty_formulas.h"

#define WGK_KERNELS "mlp_critic_loss_kernels.h"
#include "for_each_isa.h"

namespace wgk {
namespace {

constexpr int64_t kSerial = 1 << 18;  // products below which a second thread costs more than it saves
constexpr int64_t kRowsPerUnit = 48;  // of weights that a thread takes at a time: whole blocks of 6 and of 8

template <class T>
std::vector<MlpStep<T>> steps_of(const MlpLayer* layers, int64_t depth) {
  std::vector<MlpStep<T>> steps;
  for (const MlpLayer* layer = layers; layer != layers + depth; ++layer) {
    steps.push_back({layer->in, layer->out, static_cast<const T*>(layer->weight), static_cast<const T*>(layer->bias),
                     static_cast<T>(layer->slope), static_cast<T*>(layer->grad_weight),
                     static_cast<T*>(layer->grad_bias), 0, 0, 0});
  }
  return steps;
}

// Fills in the sizes, and where each layer's numbers are.
template <class T>
void lay_out(MlpPlan<T>& plan, std::vector<MlpStep<T>>& steps, int64_t lanes, int64_t vectors) {
  plan.columns = vectors * lanes;
  // More vectors a group use the registers better; one gives a small batch to more threads.
  plan.width = plan.B < 2 * vectors * lanes ? lanes : vectors * lanes;
  plan.widest = steps[0].in;
  for (MlpStep<T>& step : steps) {
    const int64_t panel = step.out * plan.width;
    plan.widest = std::max(plan.widest, step.out);
    step.mask = plan.masks_size;
    plan.masks_size += step.bends() ? panel : 0;
    step.delta = plan.kept_size;
    plan.kept_size += panel;
    if (plan.needs_grads) {
      step.factor = plan.kept_size;
      plan.kept_size += ceil_div(step.in, plan.columns) * plan.columns * plan.width;
    }
  }
}

template <class T>
void sweep(Isa isa, ParallelFor run, const MlpPlan<T>& plan, int64_t parameters) {
  const auto sweep_group = WGK_PICK(isa, sweep_group<T>);
  const int64_t products = 3 * parameters * plan.width;
  parallel_for(run, plan.groups(), ceil_div(kSerial, products + 1), [&](int64_t begin, int64_t end) {
    const Buffer<T> panels(2 * plan.widest * plan.width), unkept(plan.needs_grads ? 0 : plan.kept_size);
    const Buffer<int8_t> masks(plan.masks_size);
    for (int64_t group = begin; group < end; ++group) {
      T* kept = plan.needs_grads ? plan.kept + group * plan.kept_size : unkept.get();
      sweep_group(plan, group, kept, panels.get(), masks.get());
    }
  });
}

// Units of rows are shared out by the number of parameters before them; each is summed by one thread.
template <class T>
void sum_samples(Isa isa, ParallelFor run, const MlpPlan<T>& plan, int64_t parameters) {
  const auto sum_rows = WGK_PICK(isa, sum_rows<T>);
  parallel_for(run, parameters, ceil_div(kSerial, plan.kinds * plan.B + 1), [&](int64_t begin, int64_t end) {
    int64_t before = 0;
    for (const MlpStep<T>* step = plan.steps; step != plan.steps + plan.depth; ++step) {
      for (int64_t row = 0; row < step->out; row += kRowsPerUnit) {
        const int64_t rows = std::min(kRowsPerUnit, step->out - row);
        if (begin <= before && before < end) {
          sum_rows(plan, *step, row, row + rows);
        }
        before += rows * (step->in + 1);
      }
    }
  });
}

// From the sums of the groups' scores, in the groups' order; 0 / 0 for no samples, as torch's mean has it.
template <class T>
double wasserstein(const MlpPlan<T>& plan) {
  double difference = 0;
  for (int64_t group = 0; group < plan.groups(); ++group) {
    const SampleKind kind = plan.kind(group);
    difference += kind == SampleKind::mixed ? 0 : kind == SampleKind::real ? plan.score_sums[group]
                                                                           : -plan.score_sums[group];
  }
  return difference / (static_cast<double>(plan.B) * static_cast<double>(plan.steps[plan.depth - 1].out));
}

template <class T>
void loss_of(Isa isa, ParallelFor run, const NormPenalty& penalty, int64_t B, const MlpLayer* layers, int64_t depth,
             const CriticSamples& samples, const CriticLoss& loss) {
  std::vector<MlpStep<T>> steps = steps_of<T>(layers, depth);
  MlpPlan<T> plan{};
  plan.penalty = penalty;
  plan.B = B;
  plan.depth = depth;
  plan.kinds = samples.judged ? 3 : 1;
  plan.steps = steps.data();
  plan.samples[0] = static_cast<const T*>(samples.mixed);
  plan.samples[1] = static_cast<const T*>(samples.real);
  plan.samples[2] = static_cast<const T*>(samples.fake);
  plan.norms = loss.norms;
  plan.needs_grads = wants_derivatives(layers, depth);
  lay_out(plan, steps, WGK_PICK(isa, kLanes<T>), WGK_PICK(isa, kBlockVectors));
  int64_t parameters = 0;
  for (const MlpStep<T>& step : steps) {
    parameters += step.out * (step.in + 1);
  }
  const Buffer<T> kept(plan.needs_grads ? plan.groups() * plan.kept_size : 0);
  const Buffer<double> score_sums(plan.groups());
  plan.kept = kept.get();
  plan.score_sums = score_sums.get();
  sweep(isa, run, plan, parameters);
  double sum = 0;
  for (int64_t b = 0; b < B; ++b) {
    sum += excess(penalty, loss.norms[b]) * excess(penalty, loss.norms[b]);
  }
  *static_cast<T*>(loss.penalty) = static_cast<T>(reduced(penalty, B, sum));
  *static_cast<T*>(loss.wasserstein) = static_cast<T>(plan.kinds == 1 ? 0 : wasserstein(plan));
  if (plan.needs_grads) {
    sum_samples(isa, run, plan, parameters);
  }
}

}  // namespace

void mlp_critic_loss(Isa isa, ParallelFor run, DType dtype, const NormPenalty& penalty, int64_t B,
                     const MlpLayer* layers, int64_t depth, const CriticSamples& samples, const CriticLoss& loss) {
  dtype == DType::float64 ? loss_of<double>(isa, run, penalty, B, layers, depth, samples, loss)
                          : loss_of<float>(isa, run, penalty, B, layers, depth, samples, loss);
}

}  // namespace wgk
