// How an operator's CUDA functions come into simt_module: a file bind_<op>.cpp with
//   const Binding bind_<op>([](py::module_& m) { m.def(...); });
// Compiled as one file, unwatched by sanitizers, but for those that CMakeLists.txt lists, which have kernels.
// Functions take the arguments of core_module's, so that the tests of both share their helpers.
#pragma once

#include <pybind11/stl.h>

#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <new>
#include <stdexcept>
#include <string>

#include "../arrays.h"

namespace wgk {

using Bind = void (*)(py::module_&);

inline std::vector<Bind>& bindings() {
  static std::vector<Bind> all;
  return all;
}

struct Binding {
  explicit Binding(Bind bind) { bindings().push_back(bind); }
};

// How to run, the first argument of every function.
struct Run {
  bool reverse;  // threads and blocks from the last to the first
};

// Makes the call in the order that is asked for; a status other than success is an error.
void launch(const Run& run, const std::function<CudaStatus()>& call);

// Device memory as a caller hands it over: of just this size, and full of what was there before.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) {
    void* memory = nullptr;
    if (bytes > 0 && posix_memalign(&memory, 256, static_cast<size_t>(bytes)) != 0) {
      throw std::bad_alloc();
    }
    memory_.reset(memory);
    if (bytes > 0) {
      std::memset(memory, 0xFF, static_cast<size_t>(bytes));
    }
  }
  void* get() const { return memory_.get(); }

 private:
  struct Free {
    void operator()(void* memory) const { std::free(memory); }
  };
  std::unique_ptr<void, Free> memory_;
};

}  // namespace wgk
