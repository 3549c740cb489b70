#include "models/long_texts.h"

#include <algorithm>

namespace instruct::models {
namespace {

using tensor::QuerySegment;

// Calls body(index) for the segments whose tokens a segment sees beside its own.
template <typename Body>
void for_seen(const std::vector<QuerySegment>& segments, const QuerySegment& segment, const Body& body) {
  for (const tensor::KeyRange& range : segment.visible) {
    auto seen = std::partition_point(segments.begin(), segments.end(),
                                     [&](const QuerySegment& other) { return other.end <= range.begin; });
    for (; seen != segments.end() && seen->begin < range.end; ++seen)
      body(static_cast<std::size_t>(seen - segments.begin()));
  }
}

}  // namespace

std::vector<bool> tokens_of_long_texts(const tensor::AttentionPlan& plan, std::span<const std::int32_t> positions,
                                       double context, Keys keys) {
  const std::vector<QuerySegment>& segments = plan.queries;
  std::vector<bool> is_long(segments.size());
  for (std::size_t i = 0; i < segments.size(); ++i) {
    const auto begin = static_cast<std::size_t>(segments[i].begin);
    for (const std::int32_t position : positions.subspan(begin, static_cast<std::size_t>(segments[i].end) - begin))
      is_long[i] = is_long[i] || static_cast<double>(position) + 1 > context;
  }
  if (keys == Keys::kOfPass) {
    // Segments see only those before them: to the root of a tree, then to all that see it.
    for (std::size_t i = segments.size(); i-- > 0;) {
      if (is_long[i]) for_seen(segments, segments[i], [&](std::size_t seen) { is_long[seen] = true; });
    }
    for (std::size_t i = 0; i < segments.size(); ++i)
      for_seen(segments, segments[i], [&](std::size_t seen) { is_long[i] = is_long[i] || is_long[seen]; });
  }
  std::vector<bool> tokens(positions.size());
  for (std::size_t i = 0; i < segments.size(); ++i)
    std::fill(tokens.begin() + segments[i].begin, tokens.begin() + segments[i].end, is_long[i]);
  return tokens;
}

}  // namespace instruct::models
