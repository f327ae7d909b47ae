#include <cstdlib>
#include <stdexcept>
#include <string>

#include "common.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

namespace wgk {

const char* isa_name(Isa isa) {
  return isa == Isa::avx512 ? "avx512" : isa == Isa::avx2 ? "avx2" : "plain";
}

#if defined(__x86_64__)
[[maybe_unused]] static bool has_avx2() {
  // Older clangs know no __builtin_cpu_supports("f16c").
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool f16c = __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
  return f16c && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
#endif

bool isa_is_supported(Isa isa) {
#if defined(__x86_64__) && !defined(WGK_WITHOUT_AVX2)
  if (isa == Isa::avx2) {
    return has_avx2();
  }
#endif
#if defined(__x86_64__) && !defined(WGK_WITHOUT_AVX512)
  if (isa == Isa::avx512) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  }
#endif
  return isa == Isa::plain;
}

static Isa choose() {
  const char* wanted = std::getenv("WGAN_KERNELS_ISA");
  for (Isa isa : {Isa::avx512, Isa::avx2, Isa::plain}) {
    const bool named = wanted != nullptr && std::string(wanted) == isa_name(isa);
    if (named && !isa_is_supported(isa)) {
      throw std::runtime_error(std::string("WGAN_KERNELS_ISA names an instruction set that this machine lacks: ") +
                               wanted);
    }
    if (named || (wanted == nullptr && isa_is_supported(isa))) {
      return isa;
    }
  }
  throw std::runtime_error(std::string("WGAN_KERNELS_ISA must be plain, avx2 or avx512, got ") + wanted);
}

Isa cpu_isa() {
  static const Isa isa = choose();
  return isa;
}

}  // namespace wgk
