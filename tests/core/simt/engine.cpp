// The scheduler. Never compiled with a sanitizer, as sync.cpp.
#include "engine.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <map>
#include <stdexcept>
#include <string>

#include "block.h"

namespace simt {

const Coordinates* self = nullptr;
bool reverse_order = false;
int64_t launches = 0;
Block* running = nullptr;
Thread* current = nullptr;
char failure[2048];

namespace {

struct Launch {
  dim3 grid, block;
  size_t shared_bytes;
  void (*body)(const void*);
  const void* context;
};

const Launch* launched;
Fiber main_fiber;

constexpr size_t kMostFibers = 7900;  // ThreadSanitizer has room for 8128 threads

// Kept from launch to launch. All blocks of a launch use those of the first; but where races are looked for, a thread
// of another block on the same memory would be one.
Stacks stacks;
std::deque<Block> blocks;

uint64_t volume(dim3 d) { return uint64_t{d.x} * d.y * d.z; }

uint3 index_of(uint64_t number, dim3 size) {
  return {static_cast<unsigned>(number % size.x), static_cast<unsigned>(number / size.x % size.y),
          static_cast<unsigned>(number / size.x / size.y)};
}

void entry() {
  arrive(current->fiber);
  launched->body(launched->context);
  current->done = true;
  own_warp().stopped |= 1u << lane();
  running->returned = current;
  if (const Thread* other = running->in_barrier) {
    fail("thread %u returned while thread %u waits in __syncthreads at %s:%d", number_of(*current), number_of(*other),
         other->place.file, other->place.line);
  }
  yield();
}

void begin(Block& block, const Launch& launch, uint64_t number, size_t first_stack) {
  const auto count = static_cast<unsigned>(volume(launch.block));
  allow(block.arena.get(), kArena);
  std::memset(block.arena.get(), 0xFF, kArena);
  forbid(block.arena.get(), kArena);
  block.used = block.static_bytes = 0;
  block.array_count = 0;
  block.arrived = block.barriers = 0;
  block.in_barrier = block.returned = nullptr;
  block.threads.assign(count, {});
  block.warps.assign((count + kWarp - 1) / kWarp, {});
  block.dynamic_shared = place_shared(block, launch.shared_bytes);
  for (unsigned t = 0; t < count; ++t) {
    Thread& thread = block.threads[t];
    thread.at = {index_of(t, launch.block), index_of(number, launch.grid), launch.block, launch.grid};
    prepare(thread.fiber, stacks[first_stack + t], entry);
  }
}

// Where the threads of the block stand, a line for each place.
std::string places(const Block& block) {
  std::map<std::string, std::pair<unsigned, unsigned>> groups;  // how many, the first of them
  for (const Thread& thread : block.threads) {
    std::string place = thread.done ? "returned" : "can go on";
    if (thread.waits != nullptr) {
      place = std::string("wait in ") + thread.waits + " at " + thread.place.file + ":" +
              std::to_string(thread.place.line);
    }
    auto [at, is_new] = groups.try_emplace(place, 0, number_of(thread));
    ++at->second.first;
  }
  std::string text;
  for (const auto& [place, group] : groups) {
    text += "\n  " + std::to_string(group.first) + " threads, the first " + std::to_string(group.second) + ": " + place;
  }
  return text;
}

// Runs the block's threads in turn until all have returned; false where that cannot be, with `failure` set.
bool run_threads(Block& block) {
  const size_t count = block.threads.size();
  for (size_t done = 0; done < count;) {
    bool moved = false;
    done = 0;
    for (size_t i = 0; i < count; ++i) {
      Thread& thread = block.threads[reverse_order ? count - 1 - i : i];
      if (!thread.done && thread.waits == nullptr) {
        current = &thread;
        self = &thread.at;
        switch_fiber(main_fiber, thread.fiber);
        moved = true;
        if (failure[0] != '\0') {
          return false;
        }
      }
      done += thread.done;
    }
    if (!moved && done < count) {
      std::strcpy(failure, "deadlock");
      return false;
    }
  }
  return true;
}

void run_block(const Launch& launch, uint64_t number, size_t place) {
  const auto count = static_cast<unsigned>(volume(launch.block));
  if (place == blocks.size()) {
    blocks.emplace_back();
  }
  stacks.grow((place + 1) * count);
  Block& block = blocks[place];
  begin(block, launch, number, place * count);
  running = &block;
  failure[0] = '\0';
  if (!run_threads(block)) {
    acquire(failure);
    const uint3 at = block.threads[0].at.block_idx;
    throw std::runtime_error(std::string(failure) + "\nblock (" + std::to_string(at.x) + ", " + std::to_string(at.y) +
                             ", " + std::to_string(at.z) + "):" + places(block));
  }
}

// The host goes on after every thread.
void end() {
  char token = 0;
  for (Block& block : blocks) {
    for (Thread& thread : block.threads) {
      retire(thread.fiber, thread.done, &token);
    }
    block.threads.clear();
    allow(block.arena.get(), kArena);
  }
  acquire(&token);
}

}  // namespace

void yield() { switch_fiber(current->fiber, main_fiber); }

int run(dim3 grid, dim3 block, size_t shared_bytes, void (*body)(const void*), const void* context) {
  const bool fits = grid.x > 0 && grid.y > 0 && grid.z > 0 && grid.x <= 0x7fffffff && grid.y <= 0xffff &&
                    grid.z <= 0xffff && block.x > 0 && block.y > 0 && block.z > 0 && block.z <= 64 &&
                    volume(block) <= 1024 && shared_bytes <= kDynamicShared;
  if (!fits) {
    return kInvalidConfiguration;
  }
  if (kFindsRaces && volume(grid) * volume(block) > kMostFibers) {
    throw std::runtime_error("ThreadSanitizer has no room for so many threads: launch fewer blocks");
  }
  const Launch launch{grid, block, shared_bytes, body, context};
  launched = &launch;
  ++launches;
  prepare_main(main_fiber);
  struct Ends {
    ~Ends() { end(); }
  } ends;
  const uint64_t count = volume(grid);
  for (uint64_t b = 0; b < count; ++b) {
    run_block(launch, reverse_order ? count - 1 - b : b, kFindsRaces ? b : 0);
  }
  return 0;
}

}  // namespace simt
