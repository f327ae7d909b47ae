// Matrix products of a warp on tensor cores: C [16, 8] += A [16, K] B [K, 8], in pieces that its lanes hold.
//
// K is 8 for float (as TF32) and double, 16 for half-width floats, of which a piece is a word of two. Lane l holds,
// with g = l / 4 and t = l % 4: of A the rows g and g + 8 at columns t and t + 4 (in the order (g, t), (g + 8, t),
// (g, t + 4), (g + 8, t + 4)), of B the column g at rows t and t + 4, where columns of A and rows of B are counted in
// pieces, and of C the rows g and g + 8 at columns 2 t and 2 t + 1 (in the order (g, 2 t), (g, 2 t + 1), (g + 8, 2 t),
// (g + 8, 2 t + 1)).
#pragma once

#include "elements.cuh"

namespace wgk {

// Two neighbours in memory, which may be of any type.
using Word WGK_MAY_ALIAS = unsigned;

template <class S>
WGK_DEVICE float low_half(unsigned word) {
  return widen(S{static_cast<uint16_t>(word)});
}
template <class S>
WGK_DEVICE float high_half(unsigned word) {
  return widen(S{static_cast<uint16_t>(word >> 16)});
}

#ifdef WGK_SIMT

// What a lane brings: kIn numbers in a piece.
template <class T, int kIn>
struct LanePieces {
  T a[4][kIn], b[2][kIn];
  T* c;
};

// Tensor cores cut off what does not fit into a float, instead of rounding.
inline float cut_to_float(double sum, float) {
  const float rounded = static_cast<float>(sum);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(sum) ? std::nextafterf(rounded, 0.0f) : rounded;
}
inline double cut_to_float(double sum, double) { return sum; }

template <class T, int kIn>
void multiply_pieces(void* const* lanes) {
  const auto lane = [&](int g, int t) { return static_cast<const LanePieces<T, kIn>*>(lanes[4 * g + t]); };
  T c[32][4];
  for (int l = 0; l < 32; ++l) {
    for (int e = 0; e < 4; ++e) {
      const int row = e / 2, column = 2 * (l % 4) + e % 2;
      double sum = lane(l / 4, l % 4)->c[e];
      for (int k = 0; k < 8 * kIn; ++k) {
        const int piece = k / kIn;
        sum += static_cast<double>(lane(l / 4, piece % 4)->a[row + piece / 4 * 2][k % kIn]) *
               lane(column, piece % 4)->b[piece / 4][k % kIn];
      }
      c[l][e] = cut_to_float(sum, T{});
    }
  }
  for (int l = 0; l < 32; ++l) {
    std::copy(c[l], c[l] + 4, lane(l / 4, l % 4)->c);
  }
}

// What the lanes bring is `seen` of their pieces: kIn numbers of type T of each.
template <int kIn, class T, class Piece, class Seen>
void mma_of(const char* name, T (&c)[4], const Piece (&a)[4], const Piece (&b)[2], const Seen& seen) {
  LanePieces<T, kIn> mine{{}, {}, c};
  for (int k = 0; k < 4; ++k) {
    seen(a[k], mine.a[k]);
  }
  for (int k = 0; k < 2; ++k) {
    seen(b[k], mine.b[k]);
  }
  simt::warp_collective(0xffffffffu, name, &mine, multiply_pieces<T, kIn>, {__FILE__, __LINE__});
}

// The 11 leading bits are what TF32 has.
inline void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  mma_of<1>("mma.m16n8k8", c, a, b, [](float x, float (&seen)[1]) {
    seen[0] = __uint_as_float(__float_as_uint(x) & 0xffffe000u);
  });
}

inline void mma(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
  mma_of<1>("mma.m8n8k4", c, a, b, [](double x, double (&seen)[1]) { seen[0] = x; });
}

template <class S>
void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  mma_of<2>("mma.m16n8k16", c, a, b, [](unsigned word, float (&seen)[2]) {
    seen[0] = low_half<S>(word);
    seen[1] = high_half<S>(word);
  });
}

#else

// All of them volatile: what may be moved may be moved into a branch, where a part of the warp would wait for the rest.

WGK_DEVICE void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// The same shape as that of float, from the four products that sm_80 has of it. In one statement, since the order of
// volatile ones is kept: with four of them ptxas spills for sm_100.
WGK_DEVICE void mma(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%4}, {%8}, {%0, %1};\n\t"
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%2, %3}, {%5}, {%8}, {%2, %3};\n\t"
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%6}, {%9}, {%0, %1};\n\t"
      "mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%2, %3}, {%7}, {%9}, {%2, %3};"
      : "+d"(c[0]), "+d"(c[1]), "+d"(c[2]), "+d"(c[3])
      : "d"(a[0]), "d"(a[1]), "d"(a[2]), "d"(a[3]), "d"(b[0]), "d"(b[1]));
}

// S: bfloat16 or float16.
template <class S>
WGK_DEVICE void mma(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
  if constexpr (std::is_same_v<S, bfloat16>) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  } else {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
  }
}

#endif

}  // namespace wgk
