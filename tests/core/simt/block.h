// The running block, which the scheduler (engine.cpp) and what kernels call (sync.cpp) share.
#pragma once

#include <memory>
#include <vector>

#include "engine.h"
#include "fiber.h"

namespace simt {

constexpr size_t kGuard = 64;
constexpr size_t kArena = kDynamicShared + (64 << 10);
constexpr int kArrays = 64;
constexpr int kAtomics = 8;

struct Thread {
  Coordinates at;
  Fiber fiber;
  bool done;

  // What it waits for, null while it can go on.
  const char* waits;
  unsigned mask;
  Place place;
  void* mine;  // its part of a collective

  bool fenced;  // at least once
  int atomics;  // accessed since the last fence
  const void* addresses[kAtomics];
};

// `stopped`: lanes that wait or have returned. `gathered`: those known to wait in the collective (what, place, mask), so
// that the next of them need look only at lanes that stopped elsewhere.
struct Warp {
  unsigned barriers = 0;
  char tokens[2];

  unsigned stopped = 0;
  unsigned gathered = 0;
  unsigned mask;
  const char* what;
  Place place;
};

struct SharedArray {
  const void* tag;
  size_t offset;
};

// With everything that no two blocks of a launch may share: ThreadSanitizer would see order between them, or races that
// are none.
struct Block {
  std::vector<Thread> threads;
  std::vector<Warp> warps;
  std::unique_ptr<unsigned char[]> arena{new unsigned char[kArena]};
  size_t used, static_bytes;
  SharedArray arrays[kArrays];
  int array_count;
  unsigned arrived, barriers;
  const Thread* in_barrier;  // one of those that wait in __syncthreads, all at one place
  const Thread* returned;    // one of those that have
  char tokens[2];
  void* dynamic_shared;
};

extern Block* running;
extern Thread* current;
extern char failure[2048];  // why the launch ends; empty while it goes on

inline unsigned number_of(const Thread& thread) { return static_cast<unsigned>(&thread - running->threads.data()); }

inline Warp& own_warp() { return running->warps[number_of(*current) / kWarp]; }

// Lets other threads run; returns once `current` waits for nothing.
void yield();

// Room for a shared array between guards.
void* place_shared(Block& block, size_t bytes);

}  // namespace simt
