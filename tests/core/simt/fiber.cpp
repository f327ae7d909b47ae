#include "fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <new>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

extern "C" {
#ifdef WGK_SIMT_ASAN
void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom, size_t* size);
void __asan_poison_memory_region(void const volatile* memory, size_t bytes);
void __asan_unpoison_memory_region(void const volatile* memory, size_t bytes);
#endif
#ifdef WGK_SIMT_TSAN
void* __tsan_get_current_fiber();
void* __tsan_create_fiber(unsigned flags);
void __tsan_destroy_fiber(void* fiber);
void __tsan_switch_to_fiber(void* fiber, unsigned flags);
void __tsan_acquire(void* address);
void __tsan_release(void* address);
void AnnotateIgnoreReadsBegin(const char* file, int line);
void AnnotateIgnoreReadsEnd(const char* file, int line);
void AnnotateIgnoreWritesBegin(const char* file, int line);
void AnnotateIgnoreWritesEnd(const char* file, int line);
#endif
}

namespace simt {
namespace {

constexpr size_t kPage = 4096;

#if defined(__x86_64__)

// What the calling convention lets no callee change, saved on the stack that is left.
extern "C" void simt_switch(void** from, void* to);
asm(R"(
.pushsection .text
.type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size simt_switch, .-simt_switch
.popsection
)");

void set_entry(Fiber& fiber, void (*entry)()) {
  auto** top = reinterpret_cast<void**>(fiber.stack + fiber.size) - 1;
  *top = nullptr;  // entry has no caller
  *--top = reinterpret_cast<void*>(entry);
  for (int saved = 0; saved < 6; ++saved) {
    *--top = nullptr;
  }
  fiber.position = top;
}

void go(Fiber& from, Fiber& to) { simt_switch(&from.position, to.position); }

#else

void set_entry(Fiber& fiber, void (*entry)()) {
  const size_t size = (fiber.size - sizeof(ucontext_t)) / 64 * 64;
  auto* context = new (fiber.stack + size) ucontext_t;
  getcontext(context);
  context->uc_stack.ss_sp = fiber.stack;
  context->uc_stack.ss_size = size;
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  fiber.position = context;
}

void go(Fiber& from, Fiber& to) {
  swapcontext(static_cast<ucontext_t*>(from.position), static_cast<ucontext_t*>(to.position));
}

#endif

}  // namespace

#ifdef WGK_SIMT_TSAN
namespace {
// Of threads that have returned: to make one costs half a millisecond.
std::vector<void*> idle;

// A fiber for which all that the host did before comes first.
void* take_tsan_fiber() {
  if (idle.empty()) {
    return __tsan_create_fiber(0);
  }
  void *const taken = idle.back(), *const own = __tsan_get_current_fiber();
  idle.pop_back();
  char token = 0;
  __tsan_release(&token);
  __tsan_switch_to_fiber(taken, 1);
  __tsan_acquire(&token);
  __tsan_switch_to_fiber(own, 1);
  return taken;
}
}  // namespace
#endif

void prepare(Fiber& fiber, char* stack, void (*entry)()) {
  fiber = {};
  fiber.stack = stack;
  fiber.size = Stacks::kBytes;
  allow(stack, fiber.size);  // a fiber that was given up leaves its frames' guards behind
#ifdef WGK_SIMT_TSAN
  fiber.tsan = take_tsan_fiber();
#endif
  set_entry(fiber, entry);
}

void prepare_main(Fiber& fiber) {
#if !defined(__x86_64__)
  static ucontext_t own;
  fiber.position = &own;
#endif
#ifdef WGK_SIMT_TSAN
  fiber.tsan = __tsan_get_current_fiber();
#else
  (void)fiber;
#endif
}

#ifdef WGK_SIMT_TSAN
void retire(Fiber& fiber, bool has_returned, void* token) {
  void* const own = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(fiber.tsan, 1);
  __tsan_release(token);
  __tsan_switch_to_fiber(own, 1);
  if (has_returned) {
    idle.push_back(fiber.tsan);
  } else {
    __tsan_destroy_fiber(fiber.tsan);
  }
}
#else
void retire(Fiber&, bool, void*) {}
#endif

#ifdef WGK_SIMT_ASAN
namespace {
const void* main_stack;
size_t main_size;
}  // namespace

void arrive(Fiber& fiber) {
  const void* left;
  size_t size;
  __sanitizer_finish_switch_fiber(fiber.fake_stack, &left, &size);
  if (fiber.stack != nullptr) {  // fibers are entered from the main one only
    main_stack = left;
    main_size = size;
  }
}
#else
void arrive(Fiber&) {}
#endif

void switch_fiber(Fiber& from, Fiber& to) {
#ifdef WGK_SIMT_ASAN
  const bool is_main = to.stack == nullptr;
  __sanitizer_start_switch_fiber(&from.fake_stack, is_main ? main_stack : to.stack, is_main ? main_size : to.size);
#endif
#ifdef WGK_SIMT_TSAN
  __tsan_switch_to_fiber(to.tsan, 1);  // 1: the switch is no order between the two
#endif
  go(from, to);
  arrive(from);
}

Stacks::~Stacks() {
  for (char* stack : stacks_) {
    munmap(stack - kPage, kPage + kBytes);
  }
}

void Stacks::grow(size_t count) {
  while (stacks_.size() < count) {
    void* memory = mmap(nullptr, kPage + kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                        -1, 0);
    if (memory == MAP_FAILED || mprotect(memory, kPage, PROT_NONE) != 0) {
      throw std::bad_alloc();
    }
    stacks_.push_back(static_cast<char*>(memory) + kPage);
  }
}

#ifdef WGK_SIMT_TSAN
void release(void* token) { __tsan_release(token); }
void acquire(void* token) { __tsan_acquire(token); }

void unseen(void (*f)(void*), void* context) {
  AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
  AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  f(context);
  AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
  AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
void release(void*) {}
void acquire(void*) {}
void unseen(void (*f)(void*), void* context) { f(context); }
#endif

#ifdef WGK_SIMT_ASAN
void forbid(void* memory, size_t bytes) { __asan_poison_memory_region(memory, bytes); }
void allow(void* memory, size_t bytes) { __asan_unpoison_memory_region(memory, bytes); }
#else
void forbid(void*, size_t) {}
void allow(void*, size_t) {}
#endif

}  // namespace simt
