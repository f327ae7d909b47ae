// Memory for the length of a call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace wgk {

// Memory on cache lines. The system hands out fresh memory page by page, at first touch, which for pages of 4 KiB takes
// longer than to fill them: large arrays ask for huge ones.
inline void* allocate(size_t bytes) {
  constexpr size_t kLine = 64, kHugePage = 1 << 21;
  const size_t alignment = bytes < 2 * kHugePage ? kLine : kHugePage;
  bytes = (bytes + alignment - 1) / alignment * alignment;
  void* memory = std::aligned_alloc(alignment, bytes);
  if (memory == nullptr) {
    throw std::bad_alloc();
  }
#if defined(__linux__)
  if (alignment == kHugePage) {
    madvise(memory, bytes, MADV_HUGEPAGE);  // a wish: where it is refused, pages are small
  }
#endif
  return memory;
}

// An array on cache lines, not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0) : data_(count == 0 ? nullptr : static_cast<T*>(allocate(count * sizeof(T)))) {}
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace wgk
