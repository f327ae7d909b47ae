// Matrix products of a warp on tensor cores: C [16, 8] += A [16, 8] B [8, 8], in pieces that its lanes hold.
//
// Lane l holds, with g = l / 4 and t = l % 4: of A the rows g and g + 8 at columns t and t + 4 (in the order (g, t),
// (g + 8, t), (g, t + 4), (g + 8, t + 4)), of B the column g at rows t and t + 4, and of C the rows g and g + 8 at
// columns 2 t and 2 t + 1 (in the order (g, 2 t), (g, 2 t + 1), (g + 8, 2 t), (g + 8, 2 t + 1)).
#pragma once

#include "elements.cuh"

namespace wgk {

#ifdef WGK_SIMT

template <class T>
struct LanePieces {
  const T* a;
  const T* b;
  T* c;
};

// Tensor cores cut off what does not fit into a float, instead of rounding.
inline float cut_to_float(double sum, float) {
  const float rounded = static_cast<float>(sum);
  return std::fabs(static_cast<double>(rounded)) > std::fabs(sum) ? std::nextafterf(rounded, 0.0f) : rounded;
}
inline double cut_to_float(double sum, double) { return sum; }

template <class T>
void multiply_pieces(void* const* lanes) {
  const auto lane = [&](int g, int t) { return static_cast<const LanePieces<T>*>(lanes[4 * g + t]); };
  T c[32][4];
  for (int l = 0; l < 32; ++l) {
    for (int e = 0; e < 4; ++e) {
      const int row = e / 2, column = 2 * (l % 4) + e % 2;
      double sum = lane(l / 4, l % 4)->c[e];
      for (int k = 0; k < 8; ++k) {
        sum += static_cast<double>(lane(l / 4, k % 4)->a[row + k / 4 * 2]) * lane(column, k % 4)->b[k / 4];
      }
      c[l][e] = cut_to_float(sum, T{});
    }
  }
  for (int l = 0; l < 32; ++l) {
    std::copy(c[l], c[l] + 4, lane(l / 4, l % 4)->c);
  }
}

// The 11 leading bits are what TF32 has.
inline float cut_to_tf32(float x) { return __uint_as_float(__float_as_uint(x) & 0xffffe000u); }

inline void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  const float seen_a[4] = {cut_to_tf32(a[0]), cut_to_tf32(a[1]), cut_to_tf32(a[2]), cut_to_tf32(a[3])};
  const float seen_b[2] = {cut_to_tf32(b[0]), cut_to_tf32(b[1])};
  LanePieces<float> mine{seen_a, seen_b, c};
  simt::warp_collective(0xffffffffu, "mma.m16n8k8", &mine, multiply_pieces<float>, {__FILE__, __LINE__});
}

inline void mma(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
  LanePieces<double> mine{a, b, c};
  simt::warp_collective(0xffffffffu, "mma.m8n8k4", &mine, multiply_pieces<double>, {__FILE__, __LINE__});
}

#else

WGK_DEVICE void mma(float (&c)[4], const float (&a)[4], const float (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// Not volatile, with which ptxas spills for sm_100: no branch around it splits a warp.
WGK_DEVICE void mma_8x8x4(double& c0, double& c1, double a, double b) {
  asm("mma.sync.aligned.m8n8k4.row.col.f64.f64.f64.f64 {%0, %1}, {%2}, {%3}, {%0, %1};"
      : "+d"(c0), "+d"(c1)
      : "d"(a), "d"(b));
}

// The same shape as that of float, from four smaller products.
WGK_DEVICE void mma(double (&c)[4], const double (&a)[4], const double (&b)[2]) {
  mma_8x8x4(c[0], c[1], a[0], b[0]);
  mma_8x8x4(c[2], c[3], a[1], b[0]);
  mma_8x8x4(c[0], c[1], a[2], b[1]);
  mma_8x8x4(c[2], c[3], a[3], b[1]);
}

#endif

// The 11 leading bits of x, rounded, as TF32 has them. Infinities stay; a NaN may become 0.
WGK_DEVICE float leading_bits(float x) {
  return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
}

WGK_DEVICE float to_tf32(float x) { return x == x ? leading_bits(x) : x; }

// Three ways to multiply numbers of type T: how they are held, and c += a b.
struct DoubleProducts {
  using T = double;
  static WGK_DEVICE double rounded(double v) { return v; }
  template <int count>
  struct Factor {
    double v[count];
  };
  template <int count>
  static WGK_DEVICE Factor<count> factor(const double (&v)[count]) {
    Factor<count> f;
    for (int k = 0; k < count; ++k) {
      f.v[k] = v[k];
    }
    return f;
  }
  static WGK_DEVICE void add(double (&c)[4], const Factor<4>& a, const Factor<2>& b) {
    mma(c, a.v, b.v);
  }
};

// Of numbers that have been rounded to TF32.
struct Tf32Products {
  using T = float;
  static WGK_DEVICE float rounded(float v) { return to_tf32(v); }
  template <int count>
  struct Factor {
    float v[count];
  };
  template <int count>
  static WGK_DEVICE Factor<count> factor(const float (&v)[count]) {
    Factor<count> f;
    for (int k = 0; k < count; ++k) {
      f.v[k] = v[k];
    }
    return f;
  }
  static WGK_DEVICE void add(float (&c)[4], const Factor<4>& a, const Factor<2>& b) {
    mma(c, a.v, b.v);
  }
};

// With the digits of float: a number is its leading 11 bits and the rest, of which the next 11 count. The product of
// the rests, 2^-22 of the whole, is left out. Tensor cores do not round sums but cut them off, hence few terms in each.
struct FloatProducts {
  using T = float;
  static WGK_DEVICE float rounded(float v) { return v; }
  template <int count>
  struct Factor {
    float leading[count], rest[count];
  };
  template <int count>
  static WGK_DEVICE Factor<count> factor(const float (&v)[count]) {
    Factor<count> f;
    for (int k = 0; k < count; ++k) {
      f.leading[k] = leading_bits(v[k]);  // where that loses a NaN, the rest is one
      f.rest[k] = v[k] - f.leading[k];
    }
    return f;
  }
  static WGK_DEVICE void add(float (&c)[4], const Factor<4>& a, const Factor<2>& b) {
    float part[4] = {};
    mma(part, a.rest, b.leading);
    mma(part, a.leading, b.rest);
    mma(part, a.leading, b.leading);
    for (int e = 0; e < 4; ++e) {
      c[e] += part[e];
    }
  }
};

}  // namespace wgk
