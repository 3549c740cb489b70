// How attention cuts a plan into tasks: families of query segments that see the same keys, and trees of families that
// share some. Internal to kernels/cpu.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/segments.h"

namespace instruct::kernels::cpu {

using tensor::QuerySegment;

// Columns [begin, end) of a segment's row of keys: the visible ones, then its own run.
struct ColumnRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
};
// Those that query `query` of the segment sees behind `visible` keys, of which the window leaves those near.
inline ColumnRange seen_columns(const QuerySegment& segment, std::int64_t visible, std::int64_t query,
                                std::int64_t window) {
  const std::int64_t position = visible + query;
  ColumnRange seen{.begin = 0, .end = visible + segment.own_keys_of(query + 1)};
  if (window > 0) {
    seen.begin = std::max<std::int64_t>(0, position + 1 - window);
    seen.end = std::min(seen.end, position + window);
  }
  return seen;
}

// Segments of a few queries (decoding steps) take a direct path over the cache, for which nothing is gathered.
inline bool is_few(const QuerySegment& segment) {
  constexpr std::int64_t kFewQueries = 4;  // up to here the direct path is faster than filling blocks
  return segment.end - segment.begin <= kFewQueries;
}

// Neighbouring query segments [first, last) of the plan that see the same ranges; one that sees none is alone.
struct Family {
  std::size_t first = 0;
  std::size_t last = 0;
  std::int64_t visible_keys = 0;
  std::int64_t longest = 0;  // most queries of a member
};

std::vector<Family> families_of(const std::vector<QuerySegment>& queries);

// Families whose keys overlap, [first, last): they must be summed by one task.
struct Tree {
  std::size_t first = 0;
  std::size_t last = 0;
  std::int64_t end = 0;  // past the last key any member sees
};

std::vector<Tree> trees_of(const std::vector<Family>& families, const std::vector<QuerySegment>& queries);

}  // namespace instruct::kernels::cpu
