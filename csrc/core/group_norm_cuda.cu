#include <algorithm>

#include "group_norm.h"
#include "group_norm_params.cuh"

namespace wgk {
namespace {

// Blocks of a group, and what each takes of it: known from the sizes alone.
struct Parts {
  int64_t rows;
  int count, size;

  explicit Parts(const GroupNorm& norm) : rows(norm.B * norm.G) {
    const int64_t n = norm.group_size();
    const int64_t wanted = rows >= kManyGroups ? 1 : std::min(ceil_div(n, kNormPart), ceil_div(kManyGroups, rows));
    // Whole rounds of a block, so that packs stay whole.
    constexpr int64_t kRound = kNormThreads * kPackBytes / 2;
    size = static_cast<int>(std::min<int64_t>(ceil_div(ceil_div(n, wanted), kRound) * kRound, n));
    count = static_cast<int>(ceil_div(n, size));
  }
  int64_t sums() const { return count > 1 ? rows * count * kNormSums : 0; }
};

bool is_empty(const GroupNorm& norm) { return norm.B * norm.C * norm.S == 0; }

template <class T>
bool packs_are_whole(const GroupNormArguments<T>& args) {
  const GroupNorm& norm = args.norm;
  const int offset = pack_offset(args.x) | pack_offset(args.g) | pack_offset(args.u) |
                     pack_offset<T>(args.y) | pack_offset<T>(args.grad_x);
  const int64_t stretch = norm.channels_last ? norm.channels() : norm.group_size();
  return offset == 0 && stretch % kPackOf<T> == 0;
}

template <class T, NormPass pass>
CudaStatus launch_groups(CudaStream stream, const GroupNormArguments<T>& args) {
  const auto blocks = static_cast<unsigned>(args.norm.B * args.norm.G * args.parts);
  if (packs_are_whole(args)) {
    return WGK_LAUNCH((group_norm_kernel<T, kPackOf<T>, pass>), blocks, kNormThreads, 0, stream, args);
  }
  return WGK_LAUNCH((group_norm_kernel<T, 1, pass>), blocks, kNormThreads, 0, stream, args);
}

template <class T, NormPass pass>
CudaStatus run_groups(CudaStream stream, GroupNormArguments<T> args, double* workspace) {
  if (args.norm.group_size() > INT_MAX - kNormThreads * kPackBytes) {
    return 1;  // cudaErrorInvalidValue
  }
  const Parts parts(args.norm);
  args.parts = parts.count;
  args.part_size = parts.size;
  args.sums = workspace;
  if (parts.count == 1) {
    args.stage = NormStage::both;
    return launch_groups<T, pass>(stream, args);
  }
  args.stage = NormStage::sums;
  const CudaStatus status = launch_groups<T, pass>(stream, args);
  args.stage = NormStage::results;
  return status != 0 ? status : launch_groups<T, pass>(stream, args);
}

template <class T, NormPass pass>
CudaStatus run_params(CudaStream stream, const GroupNormArguments<T>& args, double* parts, Wide<T>* by_weight,
                      Wide<T>* by_bias) {
  const GroupNorm& norm = args.norm;
  const ParamChunks chunks(norm);
  const ParamTerms<T, pass> terms{args};
  CudaStatus status = 0;
  if (norm.C == 0) {
    return status;
  }
  if (!is_empty(norm) && chunks.columns) {
    const auto blocks = static_cast<unsigned>(chunks.count * ceil_div(norm.C, kColumnsOfBlock));
    status = WGK_LAUNCH((group_norm_columns_kernel<T, pass>), blocks, kNormThreads, 0, stream, terms, chunks.count,
                        chunks.size, parts);
  } else if (!is_empty(norm)) {
    const auto blocks = static_cast<unsigned>(chunks.count * norm.C);
    status = WGK_LAUNCH((group_norm_planes_kernel<T, pass>), blocks, kNormThreads, 0, stream, terms, chunks.count,
                        chunks.size, parts);
  }
  const int64_t count = is_empty(norm) ? 0 : chunks.count;
  const auto blocks = static_cast<unsigned>(ceil_div(norm.C, kNormThreads));
  return status != 0 ? status
                     : WGK_LAUNCH(group_norm_params_kernel<Wide<T>>, blocks, kNormThreads, 0, stream, norm.C, count,
                                  parts, by_weight, by_bias);
}

// The workspace holds the sums of groups, means of groups, and sums by channel.
struct Workspace {
  double *sums, *means, *parts;

  Workspace(const GroupNorm& norm, void* memory) : sums(static_cast<double*>(memory)) {
    means = sums + (is_empty(norm) ? 0 : Parts(norm).sums());
    parts = means + norm.B * norm.G * kNormMeans;
  }
};

template <class T>
const Wide<T>* wide(const void* p) {
  return static_cast<const Wide<T>*>(p);
}

}  // namespace

int64_t group_norm_cuda_workspace(const GroupNorm& norm) {
  const Workspace workspace(norm, nullptr);
  const int64_t before = workspace.parts - workspace.sums;
  return (before + 2 * ParamChunks(norm).count * norm.C) * static_cast<int64_t>(sizeof(double));
}

CudaStatus group_norm_cuda(CudaStream stream, DType dtype, const GroupNorm& norm, double eps,
                           const GroupNormForward& at, void* workspace) {
  return with_type(dtype, [&](auto type) -> CudaStatus {
    using T = decltype(type);
    GroupNormArguments<T> args{};
    args.norm = norm;
    args.eps = eps;
    args.x = static_cast<const T*>(at.x);
    args.y = static_cast<T*>(at.y);
    args.weight = wide<T>(at.weight);
    args.bias = wide<T>(at.bias);
    args.mean_out = static_cast<Wide<T>*>(at.mean);
    args.rstd_out = static_cast<Wide<T>*>(at.rstd);
    return is_empty(norm) ? 0 : run_groups<T, NormPass::forward>(stream, args, Workspace(norm, workspace).sums);
  });
}

CudaStatus group_norm_backward_cuda(CudaStream stream, DType dtype, const GroupNorm& norm, const GroupNormBackward& at,
                                    void* workspace) {
  return with_type(dtype, [&](auto type) -> CudaStatus {
    using T = decltype(type);
    const bool has_grads = at.grad_weight != nullptr || at.grad_bias != nullptr;
    const Workspace memory(norm, workspace);
    GroupNormArguments<T> args{};
    args.norm = norm;
    args.x = static_cast<const T*>(at.x);
    args.g = static_cast<const T*>(at.grad_y);
    args.grad_x = static_cast<T*>(at.grad_x);
    args.weight = wide<T>(at.weight);
    args.mean = wide<T>(at.mean);
    args.rstd = wide<T>(at.rstd);
    args.means = has_grads ? memory.means : nullptr;
    const CudaStatus status =
        is_empty(norm) ? 0 : run_groups<T, NormPass::backward>(stream, args, memory.sums);
    return status != 0 || !has_grads
               ? status
               : run_params<T, NormPass::backward>(stream, args, memory.parts, static_cast<Wide<T>*>(at.grad_weight),
                                                   static_cast<Wide<T>*>(at.grad_bias));
  });
}

CudaStatus group_norm_double_backward_cuda(CudaStream stream, DType dtype, const GroupNorm& norm,
                                           const GroupNormDoubleBackward& at, void* workspace) {
  return with_type(dtype, [&](auto type) -> CudaStatus {
    using T = decltype(type);
    const Workspace memory(norm, workspace);
    GroupNormArguments<T> args{};
    args.norm = norm;
    args.x = static_cast<const T*>(at.x);
    args.g = static_cast<const T*>(at.grad_y);
    args.u = static_cast<const T*>(at.grad_grad_x);
    args.y = static_cast<T*>(at.grad_grad_y);
    args.grad_x = static_cast<T*>(at.grad_x);
    args.weight = wide<T>(at.weight);
    args.p = wide<T>(at.grad_grad_weight);
    args.q = wide<T>(at.grad_grad_bias);
    args.mean = wide<T>(at.mean);
    args.rstd = wide<T>(at.rstd);
    args.means = at.grad_weight != nullptr ? memory.means : nullptr;
    const CudaStatus status = is_empty(norm) ? 0 : run_groups<T, NormPass::tangent>(stream, args, memory.sums);
    return status != 0 || at.grad_weight == nullptr
               ? status
               : run_params<T, NormPass::tangent>(stream, args, memory.parts,
                                                  static_cast<Wide<T>*>(at.grad_weight),
                                                  static_cast<Wide<T>*>(nullptr));
  });
}

}  // namespace wgk
