// Fibers: stacks that take turns on one OS thread, with what the sanitizers have to be told of them.
#pragma once

#include <cstddef>
#include <vector>

namespace simt {

struct Fiber {
  void* position = nullptr;    // the saved stack pointer, or context
  char* stack = nullptr;       // [size]; null for the OS thread's own
  size_t size = 0;
  void* fake_stack = nullptr;  // AddressSanitizer's
  void* tsan = nullptr;        // ThreadSanitizer's
};

// A fiber that will call entry, which never returns, when it is first switched to.
void prepare(Fiber& fiber, char* stack, void (*entry)());

// Saves the running fiber in `from` and goes on in `to`.
void switch_fiber(Fiber& from, Fiber& to);

// `fiber` has returned, or is given up; all that it did comes before a release at token.
void retire(Fiber& fiber, bool has_returned, void* token);

// To be called first on the stack of a fiber that runs for the first time.
void arrive(Fiber& fiber);

// The fiber of the OS thread itself.
void prepare_main(Fiber& fiber);

// Stacks, each above a page that may not be touched.
class Stacks {
 public:
  static constexpr size_t kBytes = size_t{1} << 16;

  ~Stacks();
  void grow(size_t count);
  char* operator[](size_t i) const { return stacks_[i]; }

 private:
  std::vector<char*> stacks_;
};

// Order between fibers, for ThreadSanitizer: what comes before a release at a token is before what follows an acquire.
void release(void* token);
void acquire(void* token);

// Memory that kernels may, or may not, touch, for AddressSanitizer.
void forbid(void* memory, size_t bytes);
void allow(void* memory, size_t bytes);

// Runs f(context) unseen by ThreadSanitizer.
void unseen(void (*f)(void*), void* context);

#ifdef WGK_SIMT_TSAN
constexpr bool kFindsRaces = true;
#else
constexpr bool kFindsRaces = false;
#endif

}  // namespace simt
