#include <algorithm>

#include "mlp_critic_loss_sums.cuh"
#include "mlp_critic_loss_sweeps.cuh"

namespace wgk {
namespace {

constexpr CudaStatus kInvalidValue = 1;  // cudaErrorInvalidValue
constexpr int kNarrow = 4, kWide = 8;    // samples of a group
// Each group reads all weights: a batch of more narrow groups than this, about a GPU's worth, has wide ones.
constexpr int64_t kMostNarrowGroups = 128;
constexpr int64_t kMostSharedBytes = 96 << 10;  // that every architecture has for a block

// The arguments but for addresses in the workspace, and how they are launched.
template <class T>
struct MlpLaunch {
  MlpArguments<T> arguments{};
  int64_t width, shared_bytes, workspace_bytes, tiles = 0;
  int64_t score_sums, panels, masks;  // where they begin in the workspace, behind what is kept
  bool in_shared, fits;

  MlpLaunch(int64_t B, const MlpLayer* layers, int64_t depth, bool judged) {
    MlpArguments<T>& a = arguments;
    a.B = B;
    a.depth = static_cast<int>(depth);
    a.kinds = judged ? 3 : 1;
    a.needs_grads = wants_derivatives(layers, depth);
    const int64_t kept = lay_out(layers);
    width = groups_of(kNarrow) <= kMostNarrowGroups ? kNarrow : kWide;
    if (bytes_in_shared(width, true) > kMostSharedBytes) {
      width = kNarrow;
    }
    in_shared = bytes_in_shared(width, true) <= kMostSharedBytes;
    width = in_shared ? width : kWide;
    shared_bytes = bytes_in_shared(width, in_shared);
    place_masks();
    a.groups = groups_of(width);
    fits = fits && a.groups <= INT32_MAX && tiles < INT32_MAX;
    score_sums = aligned(kept * size());
    panels = score_sums + aligned(a.groups * static_cast<int64_t>(sizeof(double)));
    masks = panels + (in_shared ? 0 : a.groups * 2 * width * a.stride * size());
    workspace_bytes = masks + (in_shared ? 0 : a.groups * a.mask_bytes);
  }

  static int64_t size() { return static_cast<int64_t>(sizeof(T)); }
  static int64_t aligned(int64_t bytes) { return ceil_div(bytes, kPackBytes) * kPackBytes; }
  int64_t groups_of(int64_t samples) const { return arguments.kinds * ceil_div(arguments.B, samples); }

  // Layers, and where what is kept of them begins; returns the elements that are kept.
  int64_t lay_out(const MlpLayer* layers) {
    MlpArguments<T>& a = arguments;
    int64_t kept = 0;
    a.stride = a.padded(layers[0].in);
    fits = layers[0].in <= kMostFeatures;
    for (int l = 0; l < a.depth; ++l) {
      const MlpLayer& from = layers[l];
      MlpCudaLayer<T>& layer = a.layers[l];
      layer.in = from.in;
      layer.out = from.out;
      layer.weight = static_cast<const T*>(from.weight);
      layer.bias = static_cast<const T*>(from.bias);
      layer.grad_weight = static_cast<T*>(from.grad_weight);
      layer.grad_bias = static_cast<T*>(from.grad_bias);
      layer.slope = static_cast<T>(from.slope);
      layer.packed = from.in % kPackOf<T> == 0 && pack_offset(layer.weight) == 0 && pack_offset(layer.grad_weight) == 0;
      a.stride = std::max(a.stride, a.padded(from.out));
      fits = fits && from.out <= kMostFeatures;
      layer.first_tile = tiles;
      if (a.needs_grads) {
        layer.delta = kept;
        kept += a.kinds * a.B * a.padded(from.out);
        layer.factor = kept;
        kept += a.kinds * a.B * a.padded(from.in);
        // A layer without inputs still has biases.
        tiles += ceil_div(from.out, kTileRows) * std::max(ceil_div(from.in, kTileColumns), int64_t{1});
      }
    }
    return kept;
  }

  int64_t mask_bytes_of(int64_t samples) const {
    int64_t bytes = 0;
    for (int l = 0; l < arguments.depth; ++l) {
      bytes += arguments.layers[l].bends() ? samples * arguments.layers[l].out : 0;
    }
    return aligned(bytes);
  }

  int64_t bytes_in_shared(int64_t samples, bool with_panels) const {
    const int64_t partials = kPartials<1, T> * samples * size();
    return partials + (with_panels ? 2 * samples * arguments.stride * size() + mask_bytes_of(samples) : 0);
  }

  void place_masks() {
    int64_t mask = 0;
    for (int l = 0; l < arguments.depth; ++l) {
      arguments.layers[l].mask = mask;
      mask += arguments.layers[l].bends() ? width * arguments.layers[l].out : 0;
    }
    arguments.mask_bytes = mask_bytes_of(width);
  }

  CudaStatus run(CudaStream stream, void* workspace) {
    MlpArguments<T>& a = arguments;
    auto* const bytes = static_cast<unsigned char*>(workspace);
    a.kept = reinterpret_cast<T*>(bytes);
    a.score_sums = reinterpret_cast<double*>(bytes + score_sums);
    a.panels = reinterpret_cast<T*>(bytes + panels);
    a.masks = bytes + masks;
    if (a.groups > 0) {
      const auto launch = [&](auto kernel) {
        return WGK_LAUNCH(kernel, static_cast<unsigned>(a.groups), kSweepThreads, static_cast<size_t>(shared_bytes),
                          stream, a);
      };
      const CudaStatus status = !in_shared        ? launch(mlp_sweeps_kernel<T, kWide, false>)
                                : width == kNarrow ? launch(mlp_sweeps_kernel<T, kNarrow, true>)
                                                   : launch(mlp_sweeps_kernel<T, kWide, true>);
      if (status != 0) {
        return status;
      }
    }
    return WGK_LAUNCH(mlp_sums_kernel<T>, static_cast<unsigned>(tiles + 1), kSumThreads, 0, stream, a);
  }

  static constexpr int64_t kMostFeatures = int64_t{1} << 27;  // positions among the rows of a group are int
};

template <class T>
CudaStatus loss_of(CudaStream stream, const NormPenalty& penalty, int64_t B, const MlpLayer* layers, int64_t depth,
                   const CriticSamples& samples, const CriticLoss& loss, void* workspace) {
  MlpLaunch<T> launch(B, layers, depth, samples.judged);
  if (!launch.fits) {
    return kInvalidValue;
  }
  MlpArguments<T>& a = launch.arguments;
  a.penalty = penalty;
  a.samples[0] = static_cast<const T*>(samples.mixed);
  a.samples[1] = static_cast<const T*>(samples.real);
  a.samples[2] = static_cast<const T*>(samples.fake);
  a.norms = loss.norms;
  a.value = static_cast<T*>(loss.penalty);
  a.wasserstein = static_cast<T*>(loss.wasserstein);
  return launch.run(stream, workspace);
}

}  // namespace

int64_t mlp_critic_loss_cuda_workspace(DType dtype, int64_t B, const MlpLayer* layers, int64_t depth, bool judged) {
  if (depth > kMostMlpLayersOnCuda) {
    return 0;
  }
  return dtype == DType::float64 ? MlpLaunch<double>(B, layers, depth, judged).workspace_bytes
                                 : MlpLaunch<float>(B, layers, depth, judged).workspace_bytes;
}

CudaStatus mlp_critic_loss_cuda(CudaStream stream, DType dtype, const NormPenalty& penalty, int64_t B,
                                const MlpLayer* layers, int64_t depth, const CriticSamples& samples,
                                const CriticLoss& loss, void* workspace) {
  if (depth > kMostMlpLayersOnCuda) {
    return kInvalidValue;
  }
  return dtype == DType::float64
             ? loss_of<double>(stream, penalty, B, layers, depth, samples, loss, workspace)
             : loss_of<float>(stream, penalty, B, layers, depth, samples, loss, workspace);
}

}  // namespace wgk
