#include "split_products.h"

#include <algorithm>
#include <cstring>

#if defined(__x86_64__) && defined(__linux__) && (!defined(__clang__) || __clang_major__ >= 12)
#define WGK_HAS_AMX 1
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>
#define WGK_AMX __attribute__((target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl")))
#endif

namespace wgk {

#ifdef WGK_HAS_AMX
namespace {

constexpr int64_t kSide = 16, kBlock = 2 * kSide;  // of a register of the unit, and of the results kept in four of them
constexpr int64_t kSumFeatures = 512;              // products of more features are summed block by block
static_assert(kTile % kBlock == 0);

bool ask_for_matrix_unit() {
  constexpr unsigned kBf16 = 1u << 22, kTiles = 1u << 24;  // of edx
  constexpr long kRequest = 0x1023, kTileData = 18;        // ARCH_REQ_XCOMP_PERM of XFEATURE_XTILEDATA
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  const bool found = __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) != 0 && (edx & kBf16) != 0 && (edx & kTiles) != 0;
  return found && syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}

struct alignas(64) UnitSettings {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes[16] = {};
  uint8_t rows[16] = {};
};

WGK_AMX inline __m512i upper_halves(__m512 v) {  // rounded to bfloat16, in the upper half of each lane
  const __m512i bits = _mm512_castps_si512(v), odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_and_si512(_mm512_mask_mov_epi32(rounded, nan, bits), _mm512_set1_epi32(static_cast<int>(0xffff0000)));
}

// Pairs of features are 32-bit numbers, of which a panel is the transpose of the rows.
WGK_AMX inline void transpose_pairs(const bfloat16* block, bfloat16* panel) {
  const __m512i at = _mm512_setr_epi32(0, 16, 32, 48, 64, 80, 96, 112, 128, 144, 160, 176, 192, 208, 224, 240);
  for (int64_t pair = 0; pair < kSide; ++pair) {
    _mm512_storeu_si512(panel + pair * kBlock,
                        _mm512_i32gather_epi32(at, reinterpret_cast<const int*>(block) + pair, 4));
  }
}

// Adds the products over features [begin, end) to the block that registers 0 to 3 hold.
WGK_AMX void add_block(const bfloat16* rows, const bfloat16* panels, int64_t width, int64_t begin, int64_t end) {
  for (int64_t d = begin; d < end; d += kSplitFeatures) {
    const auto load_a = [&](int64_t split) WGK_AMX {
      const bfloat16* block = rows + split * kTile * width + d * kSide;
      _tile_loadd(4, block, 64);
      _tile_loadd(5, block + kSide * width, 64);
    };
    const auto load_b = [&](int64_t split) WGK_AMX {
      const bfloat16* block = panels + split * kTile * width + d * kSide;
      _tile_loadd(6, block, 64);
      _tile_loadd(7, block + kSide * width, 64);
    };
    const auto multiply = []() WGK_AMX {
      _tile_dpbf16ps(0, 4, 6);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    };
    // The smallest products first, and one factor of the last stays.
    load_a(2);
    load_b(0);
    multiply();
    load_a(1);
    multiply();
    load_b(1);
    multiply();
    load_a(0);
    multiply();
    load_b(2);
    multiply();
    load_b(0);
    multiply();
  }
}

}  // namespace

bool has_matrix_unit() {
  static const bool has = ask_for_matrix_unit();
  return has;
}

WGK_AMX void split_tile(const float* rows, int64_t count, int64_t stride, int64_t D, bfloat16* split_rows,
                        bfloat16* split_panels) {
  const int64_t width = split_width(D), whole = ceil_div(count, kBlock) * kBlock;
  for (int64_t i = 0; i < whole; ++i) {
    for (int64_t d = 0; d < width; d += kSide) {
      const int64_t left = i < count ? std::clamp<int64_t>(D - d, 0, kSide) : 0;
      const int64_t at = i / kSide * kSide * width + (d / kBlock * kSide + i % kSide) * kBlock + d % kBlock;
      __m512 rest = _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << left) - 1), rows + i * stride + d);
      for (int64_t split = 0; split < kSplits; ++split) {
        const __m512i part = upper_halves(rest);
        rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(part));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(split_rows + split * kTile * width + at),
                            _mm512_cvtepi32_epi16(_mm512_srli_epi32(part, 16)));
      }
    }
  }
  for (int64_t split = 0; split < kSplits; ++split) {
    for (int64_t at = split * kTile * width; at < (split * kTile + whole) * width; at += kSide * kBlock) {
      transpose_pairs(split_rows + at, split_panels + at);
    }
  }
}

WGK_AMX void split_dots(const bfloat16* rows, int64_t count_i, const bfloat16* panels, int64_t count_j, int64_t D,
                        float* out) {
  constexpr int64_t kRow = kTile * sizeof(float);
  const int64_t width = split_width(D);
  UnitSettings settings;
  std::fill_n(settings.bytes, 8, uint16_t{64});
  std::fill_n(settings.rows, 8, uint8_t{kSide});
  _tile_loadconfig(&settings);
  __asm__ volatile("" ::: "memory");  // what loads tiles does not say what it reads
  for (int64_t begin = 0; begin < width; begin += kSumFeatures) {
    const int64_t end = std::min(width, begin + kSumFeatures);
    for (int64_t j = 0; j < count_j; j += kBlock) {
      for (int64_t i = 0; i < count_i; i += kBlock) {
        float* block = out + i * kTile + j;
        if (begin == 0) {
          _tile_zero(0);
          _tile_zero(1);
          _tile_zero(2);
          _tile_zero(3);
        } else {
          _tile_loadd(0, block, kRow);
          _tile_loadd(1, block + kSide, kRow);
          _tile_loadd(2, block + kSide * kTile, kRow);
          _tile_loadd(3, block + kSide * kTile + kSide, kRow);
        }
        add_block(rows + i * width, panels + j * width, width, begin, end);
        _tile_stored(0, block, kRow);
        _tile_stored(1, block + kSide, kRow);
        _tile_stored(2, block + kSide * kTile, kRow);
        _tile_stored(3, block + kSide * kTile + kSide, kRow);
      }
    }
  }
  _tile_release();
}

#else

bool has_matrix_unit() { return false; }
void split_tile(const float*, int64_t, int64_t, int64_t, bfloat16*, bfloat16*) {}
void split_dots(const bfloat16*, int64_t, const bfloat16*, int64_t, int64_t, float*) {}

#endif

}  // namespace wgk
