#include "tensor/segments.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::tensor {

AttentionPlan plan_of(const std::vector<Segment>& segments) {
  AttentionPlan plan;
  for (const Segment& segment : segments) {
    INSTRUCT_CHECK(!segment.source || segment.parent < 0);
    QuerySegment query{.begin = segment.begin,
                       .end = segment.end,
                       .self_begin = segment.begin,
                       .visible = {},
                       .own = segment.source ? OwnKeys::kWhole : OwnKeys::kCausal};
    if (segment.parent >= 0 && segments[static_cast<std::size_t>(segment.parent)].source) {
      const Segment& source = segments[static_cast<std::size_t>(segment.parent)];
      query.source = {{source.begin, source.end}};
    } else if (segment.parent >= 0) {
      const auto parent = static_cast<std::size_t>(segment.parent);
      INSTRUCT_CHECK(parent < plan.queries.size());
      query.visible = plan.queries[parent].visible;
      query.source = plan.queries[parent].source;
      const KeyRange own{segments[parent].begin, segments[parent].end};
      if (!query.visible.empty() && query.visible.back().end == own.begin) {
        query.visible.back().end = own.end;
      } else if (own.begin < own.end) {
        query.visible.push_back(own);
      }
    }
    plan.queries.push_back(std::move(query));
  }
  return plan;
}

AttentionPlan plan_of_whole_rows(const std::vector<Segment>& segments) {
  AttentionPlan plan;
  for (const Segment& segment : segments) {
    INSTRUCT_CHECK(segment.parent < 0);
    plan.queries.push_back({.begin = segment.begin,
                            .end = segment.end,
                            .self_begin = segment.begin,
                            .visible = {},
                            .own = OwnKeys::kWhole});
  }
  return plan;
}

std::vector<std::int32_t> positions_of(const std::vector<Segment>& segments) {
  std::vector<std::int32_t> positions;
  std::vector<std::int64_t> depth_at_end(segments.size());
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const Segment& segment = segments[i];
    std::int64_t depth = segment.parent < 0 ? 0 : depth_at_end[static_cast<std::size_t>(segment.parent)];
    if (static_cast<std::int64_t>(positions.size()) < segment.end)
      positions.resize(static_cast<std::size_t>(segment.end));
    for (std::int64_t t = segment.begin; t < segment.end; ++t) {
      positions[static_cast<std::size_t>(t)] = static_cast<std::int32_t>(depth++);
    }
    depth_at_end[i] = segment.source ? 0 : depth;
  }
  return positions;
}

}  // namespace instruct::tensor
