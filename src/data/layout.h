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
  std::int64_t source = 0;            // how many tokens at the start an encoder reads; 0 for decoders
  std::int64_t trained_tokens() const;
};

// Tokens of a row that go through the model: those before the last trained one, which is only predicted; all when none
// is trained.
std::int64_t computed_tokens(const EncodedRow& row);

// Length of what two rows share, from the start.
std::int64_t common_prefix(std::span<const std::int32_t> a, std::span<const std::int32_t> b);

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

// Where the first `count` tokens of row `row` are among the batch's tokens, in order.
std::vector<tensor::KeyRange> path_of(const Batch& batch, std::size_t row, std::int64_t count);
// Puts a batch behind the tokens of `prefix` in a cache, its own in slots from `first_slot` on: shifts positions and
// plan, and returns the slots.
std::vector<std::int32_t> put_behind(Batch& batch, const std::vector<tensor::KeyRange>& prefix,
                                     std::int64_t first_slot);

enum class Layout { kRows, kTree };

// What a shared prefix must save to be worth a segment of its own: (rows - 1) times its length. Below it, what
// attention spends on a segment costs more than the tokens saved.
inline constexpr std::int64_t kMinSavedTokens = 8;

// The batch of some rows. kRows: each row is a root segment. kTree: common prefixes that save at least
// `min_saved_tokens` become shared parents; the predictions are the same, each row's first own token being predicted
// from the prefix's last. Sources are roots, in the tree one for all rows with the same. Deterministic.
Batch make_batch(std::span<const EncodedRow* const> rows, Layout layout,
                 std::int64_t min_saved_tokens = kMinSavedTokens);

// Tokens computed by a batch of these rows, without making it.
std::int64_t batch_tokens(std::span<const EncodedRow* const> rows, Layout layout,
                          std::int64_t min_saved_tokens = kMinSavedTokens);

// What a batch costs, in what the model's time is made of.
struct BatchCost {
  std::int64_t tokens = 0;    // through every linear layer
  std::int64_t attended = 0;  // (query, key) pairs of one attention head
  std::int64_t segments = 0;
  std::int64_t predictions = 0;  // rows of logits: tokens that predict something
  std::int64_t sources = 0;      // of the tokens, those that an encoder reads

  BatchCost& operator+=(const BatchCost& other) {
    tokens += other.tokens;
    attended += other.attended;
    segments += other.segments;
    predictions += other.predictions;
    sources += other.sources;
    return *this;
  }
};
BatchCost cost_of(const Batch& batch);

// Time of a batch's parts in that of a token through the linear layers. Pass and segment are measured on a model of
// 135M parameters, forward and backward: 64 tokens alone take the time of 90, and each segment leaves blocks of
// attention unfilled.
struct CostModel {
  double pair = 0;
  double prediction = 0;
  double segment = 2;
  double pass = 32;
};
double predicted_cost(const BatchCost& cost, const CostModel& model);

}  // namespace instruct::data
