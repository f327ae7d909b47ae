// Products of tiles of float points on the matrix unit of x86 processors (AMX), which multiplies bfloat16 and adds in
// float. A float is the sum of three bfloat16 numbers; of the nine products of two such sums the three smallest, below
// the digits of float, are left out.
#pragma once

#include "kernel_pairs.h"

namespace wgk {

constexpr int64_t kSplits = 3;
constexpr int64_t kSplitFeatures = 32;  // products advance by so many features

// Whether this machine and its system have the unit. Asks the system for it, once per process.
bool has_matrix_unit();

// Features of split points, with zeros behind the last.
constexpr int64_t split_width(int64_t D) { return ceil_div(D, kSplitFeatures) * kSplitFeatures; }

// From this many features on it pays to split the points first.
constexpr int64_t kLeastSplitFeatures = 128;

// The points of one tile, rows [kTile, stride], as both factors of a product, each in blocks of 16 points and 32
// features that lie together: split_rows [kSplits, kTile / 16, width / 32, 16, 32], and split_panels
// [kSplits, kTile / 16, width / 32, 16, 16, 2], of pairs of features against points.
void split_tile(const float* rows, int64_t count, int64_t stride, int64_t D, bfloat16* split_rows,
                bfloat16* split_panels);

// out[i][j] = sum_d rows[i][d] panels[j][d], for whole blocks of 32 x 32 that cover count_i x count_j; out: [kTile, kTile].
void split_dots(const bfloat16* rows, int64_t count_i, const bfloat16* panels, int64_t count_j, int64_t D, float* out);

}  // namespace wgk
