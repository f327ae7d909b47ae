// Which pairs of points belong to a range of rows, and in which order their tiles are visited.
//
// Points are counted [x; y], rows 0 to N + M. Row i owns the pairs (i, j), j > i, so that ranges of rows share the
// pairs out, each once. Tiles are visited in rounds, and no two tiles of a round share a row or column of tiles
// (as teams meet in a tournament): a round's tiles can add to the same accumulators at the same time, and every
// accumulator gets its terms in the order of the rounds, for any number of threads. Where nothing is added to a tile,
// pairs are visited one row of tiles after the other, which leaves one of two tiles in the cache.
#pragma once

#include <algorithm>
#include <vector>

#include "kernel_pairs.h"

namespace wgk {

struct Tile {
  int64_t first, count;  // rows of [x; y]
  bool of_y;
};

struct TilePair {
  int64_t i, j;  // tiles, i <= j
};

struct TileRun {  // pairs row by row from the first on
  TilePair first;
  int64_t count;
};

class PairSchedule {
 public:
  PairSchedule(int64_t N, int64_t M, int64_t begin, int64_t end, int64_t tile_size) : tile_size_(tile_size) {
    add_tiles(begin, std::min(end, N), false);
    add_tiles(std::max(begin, N), end, true);
    owned_ = count();
    add_tiles(end, N, false);
    add_tiles(std::max(end, N), N + M, true);
  }

  const std::vector<Tile>& tiles() const { return tiles_; }
  int64_t count() const { return static_cast<int64_t>(tiles_.size()); }
  int64_t rounds() const { return owned_ == 0 ? 0 : owned_ + (others() == 0 ? 0 : std::max(owned_, others())); }

  // The pairs of tiles in a round, at most max_pairs().
  int64_t pairs(int64_t round) const {
    if (round >= owned_) {
      return std::min(owned_, others());
    }
    return owned_ / 2 + (owned_ % 2 == 0 && round % 2 == 1 ? 0 : 1);
  }
  int64_t max_pairs() const { return owned_ / 2 + 1 + std::min(owned_, others()); }

  TilePair pair(int64_t round, int64_t k) const {
    if (round < owned_) {  // i + j = round, modulo the number of tiles
      const int64_t i = ((round + 1) / 2 + k) % owned_, j = (round / 2 - k + owned_) % owned_;
      return {std::min(i, j), std::max(i, j)};
    }
    round -= owned_;
    if (owned_ <= others()) {
      return {k, owned_ + (k + round) % others()};
    }
    return {(k + round) % owned_, owned_ + k};
  }

  // The same pairs row by row: tile i with itself and each later one.
  int64_t pairs_by_rows() const { return owned_ * count() - owned_ * (owned_ - 1) / 2; }

  TilePair next_by_rows(TilePair pair) const {
    return pair.j + 1 < count() ? TilePair{pair.i, pair.j + 1} : TilePair{pair.i + 1, pair.i + 1};
  }

  // Them in parts of about the same work, where a tile with itself takes half of its pairs.
  std::vector<TileRun> parts_by_rows(int64_t parts) const {
    const int64_t pairs = pairs_by_rows();
    const auto work = [&](const TilePair& pair) {
      return tiles_[pair.i].count * tiles_[pair.j].count * (pair.i == pair.j ? 1 : 2);
    };
    int64_t all = 0, done = 0;
    TilePair pair{0, 0};
    for (int64_t k = 0; k < pairs; ++k, pair = next_by_rows(pair)) {
      all += work(pair);
    }
    std::vector<TileRun> runs;
    pair = {0, 0};
    for (int64_t k = 0; k < pairs; ++k, pair = next_by_rows(pair)) {
      while (done * parts >= all * static_cast<int64_t>(runs.size())) {
        runs.push_back({pair, 0});
      }
      ++runs.back().count;
      done += work(pair);
    }
    runs.resize(parts);
    return runs;
  }

 private:
  int64_t others() const { return count() - owned_; }

  void add_tiles(int64_t begin, int64_t end, bool of_y) {
    for (; begin < end; begin += tile_size_) {
      tiles_.push_back({begin, std::min(tile_size_, end - begin), of_y});
    }
  }

  int64_t tile_size_, owned_;
  std::vector<Tile> tiles_;
};

}  // namespace wgk
