// Token rows as trees of segments: the one layout that plain rows, packing and branching share.
//
// A batch is one flat list of tokens cut into segments. Each segment has a parent (or none); its tokens attend to all
// tokens of its ancestors and, causally, to its own. A token's position is its depth: the tokens of its ancestors plus
// its place in the segment. Plain rows are segments without parents; rows that share a prompt are children of one
// segment, whose tokens are computed once. Parents come before children.
//
// The root of a tree may be a source: what an encoder-decoder's encoder reads, each token seeing all of it. Answers,
// its descendants, attend to it apart from their own tokens, and their positions count from its end.
#pragma once

#include <cstdint>
#include <vector>

namespace instruct::tensor {

struct Segment {
  std::int64_t begin = 0;    // first token in the flat list
  std::int64_t end = 0;      // past the last token
  std::int32_t parent = -1;  // index of the parent segment, -1 for a root
  bool source = false;       // for roots alone
};

// Key positions [begin, end) that a whole query segment may see.
struct KeyRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  bool operator==(const KeyRange&) const = default;
};

// Which keys of its own run [self_begin, self_begin + end - begin) the query begin + i of a segment sees: those up to
// its own place i (decoders), all of them (encoders), or none (keys of another text).
enum class OwnKeys : std::uint8_t { kCausal, kWhole, kNone };

// Queries [begin, end) see every key of `visible` and then what `own` says of their own run. Key indices may point into
// a cache that is longer than the query list.
struct QuerySegment {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  std::int64_t self_begin = 0;
  std::vector<KeyRange> visible;
  OwnKeys own = OwnKeys::kCausal;
  std::vector<KeyRange> source = {};  // keys of the text that an answer is about, for encoder-decoders

  // Length of the own run, and how much of it the first `queries` queries see.
  std::int64_t own_keys() const { return own == OwnKeys::kNone ? 0 : end - begin; }
  std::int64_t own_keys_of(std::int64_t queries) const { return own == OwnKeys::kCausal ? queries : own_keys(); }
};

// What attention needs to know about a batch.
struct AttentionPlan {
  std::vector<QuerySegment> queries;  // in order, covering all query tokens
};

// The plan of a tree whose keys are its own tokens (training and scoring). Neighbouring ancestors merge to one range.
// Sources are seen whole by themselves, and are the `source` of their descendants.
AttentionPlan plan_of(const std::vector<Segment>& segments);
// The plan of rows whose tokens see their whole row, in both directions (encoders). No segment has a parent.
AttentionPlan plan_of_whole_rows(const std::vector<Segment>& segments);
// Position of every token: its depth, below a source counted from its end.
std::vector<std::int32_t> positions_of(const std::vector<Segment>& segments);

}  // namespace instruct::tensor
