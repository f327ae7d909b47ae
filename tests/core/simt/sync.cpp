// What kernels call: barriers, collectives, fences, shared memory. Never compiled with a sanitizer: what one fiber
// reads here of another must not look like a race, nor like order.
#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <cstring>

#include "block.h"

namespace simt {
namespace {

void wait_for(const char* what, unsigned mask, Place place, void* mine) {
  current->waits = what;
  current->mask = mask;
  current->place = place;
  current->mine = mine;
  own_warp().stopped |= 1u << lane();
}

bool same(const char* a, const char* b) { return a == b || std::strcmp(a, b) == 0; }
bool same(Place a, Place b) { return a.line == b.line && same(a.file, b.file); }

// The lanes of a warp may come to one collective only, from one place.
void check_meets(const Thread& other, const char* what, unsigned mask, Place place) {
  const unsigned lane = number_of(other) % kWarp;
  if (other.done) {
    fail("%s at %s:%d: lane %u is in the mask 0x%08x but has returned", what, place.file, place.line, lane, mask);
  }
  if (other.waits == nullptr) {
    return;
  }
  if (!same(other.waits, what) || !same(other.place, place)) {
    fail("%s at %s:%d: lane %u is in the mask 0x%08x but waits in %s at %s:%d", what, place.file, place.line, lane,
         mask, other.waits, other.place.file, other.place.line);
  }
  if (other.mask != mask) {
    fail("%s at %s:%d: lanes came with different masks, 0x%08x and 0x%08x", what, place.file, place.line, mask,
         other.mask);
  }
}

struct Together {
  void (*run)(void* const* lanes);
  void* lanes[kWarp];
};

}  // namespace

unsigned lane() { return number_of(*current) % kWarp; }

void fail(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(failure, sizeof(failure), format, arguments);
  va_end(arguments);
  release(failure);
  yield();
  __builtin_unreachable();
}

void block_barrier(Place place) {
  Block& block = *running;
  if (const Thread* other = block.returned) {
    fail("__syncthreads at %s:%d: thread %u has returned", place.file, place.line, number_of(*other));
  }
  if (const Thread* other = block.in_barrier; other != nullptr && !same(other->place, place)) {
    fail("__syncthreads at %s:%d: thread %u waits in that at %s:%d", place.file, place.line, number_of(*other),
         other->place.file, other->place.line);
  }
  // Two tokens in turn: who leaves late must not take part in what others do before the next barrier.
  char* token = &block.tokens[block.barriers % 2];
  release(token);
  if (++block.arrived == block.threads.size()) {
    block.arrived = 0;
    block.in_barrier = nullptr;
    ++block.barriers;
    for (Thread& thread : block.threads) {
      thread.waits = nullptr;
    }
    for (Warp& warp : block.warps) {
      warp.stopped = 0;
    }
  } else {
    wait_for("__syncthreads", 0, place, nullptr);
    block.in_barrier = current;
    yield();
  }
  acquire(token);
}

void warp_collective(unsigned mask, const char* what, void* mine, void (*together)(void* const* lanes), Place place) {
  const unsigned own = lane(), first = number_of(*current) - own;
  if (!(mask >> own & 1)) {
    fail("%s at %s:%d: lane %u is not in its own mask 0x%08x", what, place.file, place.line, own, mask);
  }
  Thread* lanes = &running->threads[first];
  Warp& warp = own_warp();
  const bool meets = warp.gathered != 0 && warp.mask == mask && same(warp.what, what) && same(warp.place, place);
  if (!meets || (warp.stopped & mask & ~warp.gathered) != 0) {
    const size_t present = running->threads.size() - first;
    warp.gathered = 0;
    for (unsigned i = 0; i < kWarp; ++i) {
      if (!(mask >> i & 1) || i == own) {
        continue;
      }
      if (i >= present) {
        fail("%s at %s:%d: the mask 0x%08x names lane %u, but the warp has %zu", what, place.file, place.line, mask, i,
             present);
      }
      check_meets(lanes[i], what, mask, place);
      warp.gathered |= lanes[i].waits != nullptr ? 1u << i : 0;
    }
    warp.mask = mask;
    warp.what = what;
    warp.place = place;
  }
  warp.gathered |= 1u << own;
  if (warp.gathered != mask) {
    wait_for(what, mask, place, mine);
    return yield();
  }
  Together group{together, {}};
  for (unsigned i = 0; i < kWarp; ++i) {
    if (mask >> i & 1) {
      group.lanes[i] = i == own ? mine : lanes[i].mine;
      lanes[i].waits = nullptr;
    }
  }
  warp.stopped &= ~mask;
  warp.gathered = 0;
  if (together != nullptr) {
    unseen([](void* context) { static_cast<Together*>(context)->run(static_cast<Together*>(context)->lanes); }, &group);
  }
}

void warp_barrier(unsigned mask, Place place) {
  Warp& warp = own_warp();
  char* token = &warp.tokens[warp.barriers % 2];
  release(token);
  const auto count = [](void* const* lanes) {
    void* const* some = std::find_if(lanes, lanes + kWarp, [](void* mine) { return mine != nullptr; });
    ++*static_cast<unsigned*>(*some);
  };
  warp_collective(mask, "__syncwarp", &warp.barriers, count, place);
  acquire(token);
}

void fence() {
  Thread& thread = *current;
  for (int i = 0; i < thread.atomics; ++i) {
    acquire(const_cast<void*>(thread.addresses[i]));
  }
  thread.atomics = 0;
  thread.fenced = true;
}

void atomic_access(const void* address) {
  Thread& thread = *current;
  if (thread.fenced) {
    release(const_cast<void*>(address));
  }
  for (int i = 0; i < thread.atomics; ++i) {
    if (thread.addresses[i] == address) {
      return;
    }
  }
  if (thread.atomics == kAtomics) {
    fail("more than %d addresses of atomics between two fences: raise kAtomics", kAtomics);
  }
  thread.addresses[thread.atomics++] = address;
}

void* place_shared(Block& block, size_t bytes) {
  const size_t offset = block.used + kGuard;
  const size_t end = offset + (bytes + 15) / 16 * 16;
  if (end + kGuard > kArena) {
    return nullptr;
  }
  block.used = end;
  allow(block.arena.get() + offset, bytes);
  return block.arena.get() + offset;
}

void* shared_array(const void* tag, size_t bytes) {
  Block& block = *running;
  for (int i = 0; i < block.array_count; ++i) {
    if (block.arrays[i].tag == tag) {
      return block.arena.get() + block.arrays[i].offset;
    }
  }
  block.static_bytes += (bytes + 15) / 16 * 16;
  void* memory = place_shared(block, bytes);
  if (block.array_count == kArrays || block.static_bytes > kStaticShared || memory == nullptr) {
    fail("%zu bytes in %d static shared arrays: too much", block.static_bytes, block.array_count + 1);
  }
  const auto offset = static_cast<size_t>(static_cast<unsigned char*>(memory) - block.arena.get());
  block.arrays[block.array_count++] = {tag, offset};
  return memory;
}

void* dynamic_shared() { return running->dynamic_shared; }

}  // namespace simt
