// Shuffles and votes.
#pragma once

#include <cstring>
#include <type_traits>

#include "engine.h"

namespace simt {

struct Shuffled {
  uint64_t value;
  unsigned source;  // lane
  uint64_t result;
};

inline void shuffle_lanes(void* const* lanes) {
  for (unsigned i = 0; i < kWarp; ++i) {
    if (auto* mine = static_cast<Shuffled*>(lanes[i])) {
      mine->result = static_cast<const Shuffled*>(lanes[mine->source])->value;
    }
  }
}

template <class T>
T shuffle(unsigned mask, const char* what, T value, unsigned source, Place place) {
  static_assert(std::is_arithmetic_v<T> && sizeof(T) >= 4, "shuffles move numbers of 4 or 8 bytes");
  if (!(mask >> source & 1)) {
    fail("%s at %s:%d: lane %u reads lane %u, which is not in the mask 0x%08x", what, place.file, place.line, lane(),
         source, mask);
  }
  Shuffled mine{0, source, 0};
  std::memcpy(&mine.value, &value, sizeof(T));
  warp_collective(mask, what, &mine, shuffle_lanes, place);
  std::memcpy(&value, &mine.result, sizeof(T));
  return value;
}

struct Vote {
  bool predicate;
  unsigned ballot;
};

inline void count_votes(void* const* lanes) {
  unsigned ballot = 0;
  for (unsigned i = 0; i < kWarp; ++i) {
    const auto* mine = static_cast<const Vote*>(lanes[i]);
    ballot |= mine != nullptr && mine->predicate ? 1u << i : 0;
  }
  for (unsigned i = 0; i < kWarp; ++i) {
    if (lanes[i] != nullptr) {
      static_cast<Vote*>(lanes[i])->ballot = ballot;
    }
  }
}

inline unsigned ballot(unsigned mask, const char* what, bool predicate, Place place) {
  Vote mine{predicate, 0};
  warp_collective(mask, what, &mine, count_votes, place);
  return mine.ballot;
}

}  // namespace simt

// A lane outside the segment of `width` lanes, where the reader lies, stands for the reader itself.
template <class T>
T __shfl_sync(unsigned mask, T value, int source, int width = 32, WGK_SIMT_HERE) {
  const unsigned own = simt::lane(), w = static_cast<unsigned>(width);
  return simt::shuffle(mask, "__shfl_sync", value, own / w * w + static_cast<unsigned>(source) % w, {file, line});
}

template <class T>
T __shfl_xor_sync(unsigned mask, T value, int lane_mask, int width = 32, WGK_SIMT_HERE) {
  const unsigned own = simt::lane(), w = static_cast<unsigned>(width);
  const unsigned source = own ^ static_cast<unsigned>(lane_mask);
  return simt::shuffle(mask, "__shfl_xor_sync", value, source < own / w * w + w ? source : own, {file, line});
}

template <class T>
T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, WGK_SIMT_HERE) {
  const unsigned own = simt::lane(), w = static_cast<unsigned>(width);
  return simt::shuffle(mask, "__shfl_down_sync", value, own % w + delta < w ? own + delta : own, {file, line});
}

template <class T>
T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, WGK_SIMT_HERE) {
  const unsigned own = simt::lane(), w = static_cast<unsigned>(width);
  return simt::shuffle(mask, "__shfl_up_sync", value, own % w >= delta ? own - delta : own, {file, line});
}

inline unsigned __ballot_sync(unsigned mask, int predicate, WGK_SIMT_HERE) {
  return simt::ballot(mask, "__ballot_sync", predicate != 0, {file, line});
}

inline int __any_sync(unsigned mask, int predicate, WGK_SIMT_HERE) {
  return simt::ballot(mask, "__any_sync", predicate != 0, {file, line}) != 0;
}

inline int __all_sync(unsigned mask, int predicate, WGK_SIMT_HERE) {
  return simt::ballot(mask, "__all_sync", predicate != 0, {file, line}) == mask;
}
