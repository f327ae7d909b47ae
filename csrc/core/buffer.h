// Memory for the length of a call.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

namespace wgk {

// An array on cache lines, not initialised.
template <class T>
class Buffer {
 public:
  explicit Buffer(int64_t count = 0)
      : data_(count == 0 ? nullptr : static_cast<T*>(std::aligned_alloc(64, (count * sizeof(T) + 63) / 64 * 64))) {
    if (count != 0 && data_ == nullptr) {
      throw std::bad_alloc();
    }
  }
  T* get() const { return data_.get(); }

 private:
  struct Free {
    void operator()(T* p) const { std::free(p); }
  };
  std::unique_ptr<T, Free> data_;
};

}  // namespace wgk
