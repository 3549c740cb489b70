#include "kernels/cpu/attention_plan.h"

#include <algorithm>
#include <limits>

namespace instruct::kernels::cpu {

using tensor::KeyRange;

std::vector<Family> families_of(const std::vector<QuerySegment>& queries) {
  std::vector<Family> families;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    const std::int64_t length = queries[i].end - queries[i].begin;
    const auto& visible = queries[i].visible;
    if (!families.empty() && !visible.empty() && queries[families.back().first].visible == visible) {
      families.back().last = i + 1;
      families.back().longest = std::max(families.back().longest, length);
      continue;
    }
    Family family{.first = i, .last = i + 1, .visible_keys = 0, .longest = length};
    for (const KeyRange& range : queries[i].visible) family.visible_keys += range.end - range.begin;
    families.push_back(family);
  }
  return families;
}

std::vector<Tree> trees_of(const std::vector<Family>& families, const std::vector<QuerySegment>& queries) {
  std::vector<Tree> trees;
  for (std::size_t f = 0; f < families.size(); ++f) {
    std::int64_t begin = std::numeric_limits<std::int64_t>::max();
    std::int64_t end = 0;
    for (std::size_t i = families[f].first; i < families[f].last; ++i) {
      if (queries[i].own == tensor::OwnKeys::kNone) continue;
      begin = std::min(begin, queries[i].self_begin);
      end = std::max(end, queries[i].self_begin + queries[i].own_keys());
    }
    for (const KeyRange& range : queries[families[f].first].visible) {
      begin = std::min(begin, range.begin);
      end = std::max(end, range.end);
    }
    // Trees may be interleaved: a family joins every earlier tree whose keys it may touch, and what lies between.
    Tree joined{f, f + 1, end};
    while (!trees.empty() && begin < trees.back().end) {
      joined.first = trees.back().first;
      joined.end = std::max(joined.end, trees.back().end);
      trees.pop_back();
    }
    trees.push_back(joined);
  }
  return trees;
}

}  // namespace instruct::kernels::cpu
