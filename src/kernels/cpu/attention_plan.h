// How attention cuts a plan into tasks: families of query segments that see the same keys, and trees of families that
// share some. Internal to kernels/cpu.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "tensor/segments.h"

namespace instruct::kernels::cpu {

using tensor::QuerySegment;

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
