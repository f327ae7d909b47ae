// The ways to multiply the points of a tile on tensor cores: what is in shared memory, how a lane takes a piece of it
// (of A on the left or of B on the right, mma.cuh), and c += a b.
//
// P::T is what products add up in, P::Tile what a tile holds, P::kStep the columns of A in one product, P::kIn the
// numbers in a piece. P::Weighted multiplies weights, which are computed in T, with points of such a tile, and P::Wide
// with other numbers of type T.
#pragma once

#include "mma.cuh"

namespace wgk {

// The 11 leading bits of x, rounded, as TF32 has them. Infinities stay; a NaN may become 0.
WGK_DEVICE float leading_bits(float x) {
  return __uint_as_float((__float_as_uint(x) + 0x1000u) & 0xffffe000u);
}

WGK_DEVICE float to_tf32(float x) { return x == x ? leading_bits(x) : x; }

template <class T, int count>
struct Plain {
  T v[count];
};

// A number is its leading 11 bits and the rest, of which the next 11 count.
template <int count>
struct Split {
  float leading[count], rest[count];
};

template <class T, int count>
WGK_DEVICE Plain<T, count> plain(const T (&v)[count]) {
  Plain<T, count> factor;
  for (int k = 0; k < count; ++k) {
    factor.v[k] = v[k];
  }
  return factor;
}

template <int count>
WGK_DEVICE Split<count> split(const float (&v)[count]) {
  Split<count> factor;
  for (int k = 0; k < count; ++k) {
    factor.leading[k] = leading_bits(v[k]);  // where that loses a NaN, the rest is one
    factor.rest[k] = v[k] - factor.leading[k];
  }
  return factor;
}

// Tensor cores do not round sums but cut them off, hence few terms in each.
WGK_DEVICE void add_part(float (&c)[4], const float (&part)[4]) {
  for (int e = 0; e < 4; ++e) {
    c[e] += part[e];
  }
}

// Pieces of one number each, as they are in memory.
template <class Number>
struct WholeNumbers {
  using T = Number;
  using Tile = Number;
  static constexpr int kStep = 8, kIn = 1;
  static WGK_DEVICE T piece(const Tile* at) { return *at; }
};

struct DoubleProducts : WholeNumbers<double> {
  using Weighted = DoubleProducts;
  using Wide = DoubleProducts;
  static WGK_DEVICE double rounded(double v) { return v; }
  static WGK_DEVICE Plain<double, 4> left(const double (&v)[4]) { return plain(v); }
  static WGK_DEVICE Plain<double, 2> right(const double (&v)[2]) { return plain(v); }
  static WGK_DEVICE void add(double (&c)[4], const Plain<double, 4>& a, const Plain<double, 2>& b) { mma(c, a.v, b.v); }
};

// Of numbers that have been rounded to TF32.
struct Tf32Products : WholeNumbers<float> {
  using Weighted = Tf32Products;
  using Wide = Tf32Products;
  static WGK_DEVICE float rounded(float v) { return to_tf32(v); }
  static WGK_DEVICE Plain<float, 4> left(const float (&v)[4]) { return plain(v); }
  static WGK_DEVICE Plain<float, 2> right(const float (&v)[2]) { return plain(v); }
  static WGK_DEVICE void add(float (&c)[4], const Plain<float, 4>& a, const Plain<float, 2>& b) { mma(c, a.v, b.v); }
};

// With the digits of float. The product of the rests, 2^-22 of the whole, is left out.
struct FloatProducts : WholeNumbers<float> {
  using Weighted = FloatProducts;
  using Wide = FloatProducts;
  static WGK_DEVICE float rounded(float v) { return v; }
  static WGK_DEVICE Split<4> left(const float (&v)[4]) { return split(v); }
  static WGK_DEVICE Split<2> right(const float (&v)[2]) { return split(v); }
  static WGK_DEVICE void add(float (&c)[4], const Split<4>& a, const Split<2>& b) {
    float part[4] = {};
    mma(part, a.rest, b.leading);
    mma(part, a.leading, b.rest);
    mma(part, a.leading, b.leading);
    add_part(c, part);
  }
};

// Of weights with the digits of float and points of a half-width dtype, which TF32 holds as they are.
template <class S>
struct WeightedHalves {
  using T = float;
  using Tile = S;
  static WGK_DEVICE Split<4> left(const float (&v)[4]) { return split(v); }
  static WGK_DEVICE Plain<float, 2> right(const S (&v)[2]) { return {{widen(v[0]), widen(v[1])}}; }
  static WGK_DEVICE void add(float (&c)[4], const Split<4>& a, const Plain<float, 2>& b) {
    float part[4] = {};
    mma(part, a.rest, b.v);
    mma(part, a.leading, b.v);
    add_part(c, part);
  }
};

// Of points as their half-width dtype S has them. The products of two are exact in float: 16 bits of bfloat16, 22 of
// float16. That is one product of tensor cores where FloatProducts need six.
template <class S>
struct HalfProducts {
  using T = float;
  using Tile = S;
  using Weighted = WeightedHalves<S>;
  using Wide = FloatProducts;
  static constexpr int kStep = 16, kIn = 2;
  static WGK_DEVICE unsigned piece(const S* at) { return *reinterpret_cast<const Word*>(at); }
  static WGK_DEVICE float rounded(float v) { return v; }
  static WGK_DEVICE Plain<unsigned, 4> left(const unsigned (&v)[4]) { return plain(v); }
  static WGK_DEVICE Plain<unsigned, 2> right(const unsigned (&v)[2]) { return plain(v); }
  static WGK_DEVICE void add(float (&c)[4], const Plain<unsigned, 4>& a, const Plain<unsigned, 2>& b) {
    float part[4] = {};
    mma<S>(part, a.v, b.v);
    add_part(c, part);
  }
};

}  // namespace wgk
