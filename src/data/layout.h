// Encoded rows to batches: flat tokens cut into a forest of segments, and the list of what is predicted where.
//
// Plain and packed layouts make every row a segment of its own. The tree layout lets rows that start with the same
// tokens share those as a parent segment, computed once: a prefix shared by n rows costs one pass instead of n.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "tensor/segments.h"

namespace instruct::data {

// A row ready for the model.
struct EncodedRow {
  std::vector<std::int32_t> tokens;
  std::vector<std::uint8_t> trained;  // 1: this token is predicted from those before it
  std::int64_t example = 0;           // index in the data set
  std::int64_t trained_tokens() const;
};

// Tokens of a row that go through the model: those before the last trained one, which is only predicted; all when none
// is trained.
std::int64_t computed_tokens(const EncodedRow& row);

// One prediction: the output at token `token` of the batch should be `target`.
struct LossEntry {
  std::int32_t token = 0;
  std::int32_t target = 0;
  std::int32_t row = 0;  // index into the rows the batch was made from
};

struct Batch {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> positions;
  std::vector<tensor::Segment> segments;
  tensor::AttentionPlan plan;
  std::vector<LossEntry> losses;       // by row, then by position
  std::vector<std::int32_t> row_ends;  // last computed batch token of each row
  std::int64_t rows = 0;
};

// The predictions of a batch as a model takes them: the tokens whose output is wanted, each once and ascending, and for
// each of batch.losses its target and where its token is among those.
struct Outputs {
  std::vector<std::int32_t> tokens;
  std::vector<std::int32_t> targets;
  std::vector<std::int32_t> places;
};
Outputs outputs_of(const Batch& batch);

enum class Layout { kRows, kTree };

// Shortest prefix worth a segment of its own: below it, the extra attention blocks cost more than the tokens saved.
inline constexpr std::int64_t kMinSharedTokens = 16;

// The batch of some rows. kRows: each row is a root segment. kTree: longest common prefixes of at least
// `min_shared_tokens` become shared parents; the predictions are the same, each row's first own token being predicted
// from the prefix's last. Deterministic.
Batch make_batch(std::span<const EncodedRow* const> rows, Layout layout,
                 std::int64_t min_shared_tokens = kMinSharedTokens);

// Tokens computed by a batch of these rows, without making it.
std::int64_t batch_tokens(std::span<const EncodedRow* const> rows, Layout layout,
                          std::int64_t min_shared_tokens = kMinSharedTokens);

// What a batch costs, in what the model's time is made of.
struct BatchCost {
  std::int64_t tokens = 0;       // through every linear layer
  std::int64_t attended = 0;     // (query, key) pairs of one attention head
  std::int64_t predictions = 0;  // rows of logits: tokens that predict something
};
BatchCost cost_of(const Batch& batch);

}  // namespace instruct::data
