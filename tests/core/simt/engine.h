// A CUDA launch on the CPU: every CUDA thread is a fiber, a block is a set of fibers, and blocks run one after another.
// What the rest of the shim is made of; kernels see simt.h.
#pragma once

#include <vector_types.h>

#include <cstddef>
#include <cstdint>
#include <tuple>
#include <utility>

namespace simt {

// A place in a kernel's source, for reports.
struct Place {
  const char* file;
  int line;
};
// Two last parameters that tell where a function was called.
#define WGK_SIMT_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

struct Coordinates {
  uint3 thread_idx, block_idx;
  dim3 block_dim, grid_dim;
};
// Of the thread that runs now.
extern const Coordinates* self;

// ---- for kernels

constexpr unsigned kWarp = 32;
constexpr size_t kStaticShared = 48 << 10;
constexpr size_t kDynamicShared = 227 << 10;  // with static arrays; sm_90

// All threads of the block have to come to the same place.
void block_barrier(Place place);

// Calls together(lanes) once, when every lane of mask has come to the same place with the same mask; lanes [32] holds
// each lane's `mine`, or null where the lane is not in mask. Gives no order to memory.
void warp_collective(unsigned mask, const char* what, void* mine, void (*together)(void* const* lanes), Place place);

// A collective that orders what its lanes did before and after it.
void warp_barrier(unsigned mask, Place place);

// The running block's array of the declaration that owns `tag`, between guards. Bytes are 0xFF until they are written.
void* shared_array(const void* tag, size_t bytes);
void* dynamic_shared();

// __threadfence, and an atomic access of this thread. Two of them order as in the memory model: what is before a fence
// before an atomic comes before what is after a fence after a later atomic on the same address.
void fence();
void atomic_access(const void* address);

unsigned lane();

// Ends the launch with a message.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// ---- for the host

// Threads, and blocks, from the last to the first.
extern bool reverse_order;

// How many launches there have been.
extern int64_t launches;

constexpr int kInvalidConfiguration = 9;  // as cudaErrorInvalidConfiguration

// Runs body(context) as every thread of the grid. Throws std::runtime_error for what a kernel may not do.
int run(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void* context), const void* context);

template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared_bytes, Arguments&&... arguments) {
  static_assert((sizeof(Parameters) + ... + 0) <= 4096, "arguments of a kernel are limited to 4 KB");
  struct Call {
    void (*kernel)(Parameters...);
    std::tuple<Parameters...> arguments;
  };
  const Call call{kernel, {std::forward<Arguments>(arguments)...}};
  const auto body = [](const void* context) {
    const Call& made = *static_cast<const Call*>(context);
    std::apply(made.kernel, made.arguments);
  };
  return run(grid, block, shared_bytes, body, &call);
}

}  // namespace simt
