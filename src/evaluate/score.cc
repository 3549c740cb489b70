#include "evaluate/score.h"

#include <algorithm>
#include <limits>
#include <optional>

#include "base/cancel.h"
#include "data/grouping.h"

namespace instruct::evaluate {
namespace {

using tensor::KeyRange;

constexpr std::int64_t kMinKept = 32;  // tokens: fewer are computed again rather than kept in a cache

// Rows in passes that share prefixes. What a pass shares with the last row of the one before it (few-shot examples, a
// document whose branches fill several passes) stays in a key/value cache and is not computed again.
class Scorer {
 public:
  Scorer(ops::Engine& engine, models::LanguageModel& model, std::span<const data::EncodedRow> rows,
         std::int64_t vocabulary)
      : engine_(engine), model_(model), rows_(rows), vocabulary_(vocabulary), scores_(rows.size()) {}

  std::vector<RowScore> run(const ScoreOptions& options, const std::function<void(std::int64_t)>& on_done) {
    lay_out(options);
    adapter_ = options.adapter;
    std::int64_t done = 0;
    for (const Pass& pass : passes_) {
      throw_if_cancelled("scoring");
      if (cache_ && !pass.kept.empty()) cache_->keep(pass.kept);
      compute(pass);
      done += static_cast<std::int64_t>(pass.rows.size());
      if (on_done) on_done(done);
    }
    return std::move(scores_);
  }

 private:
  struct Pass {
    std::vector<std::size_t> rows;
    std::int64_t shared = 0;          // tokens that lie in the first slots of the cache
    std::vector<KeyRange> kept;       // where the pass before left them
    data::Batch batch;                // of what is behind them
    std::vector<std::int32_t> slots;  // of the batch's tokens, when the cache is used
  };

  void lay_out(const ScoreOptions& options) {
    std::vector<const data::EncodedRow*> pointers;
    for (const data::EncodedRow& row : rows_) pointers.push_back(&row);
    for (std::vector<std::size_t>& rows : data::micro_batches(
             pointers, options.layout,
             {.max_rows = std::numeric_limits<std::int64_t>::max(), .max_tokens = options.batch_tokens}))
      passes_.push_back({.rows = std::move(rows), .kept = {}, .batch = {}, .slots = {}});
    std::int64_t slots = 0;
    for (std::size_t p = 0; p < passes_.size(); ++p) {
      Pass& pass = passes_[p];
      if (p > 0 && options.layout == data::Layout::kTree) pass.shared = shared_with(passes_[p - 1], pass);
      pass.batch = batch_of(pass, options.layout);
      pass.slots = data::put_behind(pass.batch, {{0, pass.shared}}, pass.shared);
      slots = std::max(slots, pass.shared + static_cast<std::int64_t>(pass.slots.size()));
      if (p > 0) pass.kept = path_in(passes_[p - 1], pass.shared);
    }
    const bool keeps = std::any_of(passes_.begin(), passes_.end(), [](const Pass& pass) { return pass.shared > 0; });
    if (keeps) cache_ = model_.make_cache(slots, engine_.allocator());
  }

  // Tokens at the start of all rows of a pass, and of the last row of the one before. Each row's first prediction is
  // made behind them.
  std::int64_t shared_with(const Pass& before, const Pass& pass) const {
    const data::EncodedRow& last = rows_[before.rows.back()];
    if (last.source > 0) return 0;  // of an encoder-decoder: an answer's tokens are all that could be kept
    std::int64_t shared = data::computed_tokens(last);
    for (const std::size_t row : pass.rows) {
      const std::vector<std::uint8_t>& trained = rows_[row].trained;
      shared = std::min({shared, data::common_prefix(last.tokens, rows_[row].tokens),
                         std::find(trained.begin(), trained.end(), 1) - trained.begin() - 1});
    }
    return shared < kMinKept ? 0 : shared;
  }

  data::Batch batch_of(const Pass& pass, data::Layout layout) const {
    std::vector<data::EncodedRow> rest;
    for (const std::size_t row : pass.rows) {
      rest.push_back({.tokens = {rows_[row].tokens.begin() + pass.shared, rows_[row].tokens.end()},
                      .trained = {rows_[row].trained.begin() + pass.shared, rows_[row].trained.end()},
                      .source = rows_[row].source});
    }
    std::vector<const data::EncodedRow*> pointers;
    for (const data::EncodedRow& row : rest) pointers.push_back(&row);
    return data::make_batch(pointers, layout);
  }

  // Slots of the first `count` tokens of a pass's last row.
  static std::vector<KeyRange> path_in(const Pass& pass, std::int64_t count) {
    if (count == 0) return {};
    std::vector<KeyRange> path{{0, std::min(count, pass.shared)}};
    if (count <= pass.shared) return path;
    for (const KeyRange& range : data::path_of(pass.batch, pass.rows.size() - 1, count - pass.shared))
      path.push_back({range.begin + pass.shared, range.end + pass.shared});
    return path;
  }

  void compute(const Pass& pass) {
    const data::Batch& batch = pass.batch;
    const data::Outputs outputs = data::outputs_of(batch);
    if (outputs.tokens.empty()) return;
    const std::vector<float> weights(outputs.targets.size(), 0.0F);
    const std::vector<std::int32_t> adapters(batch.tokens.size(), adapter_);
    models::Pass tokens{.tokens = batch.tokens,
                        .positions = batch.positions,
                        .plan = &batch.plan,
                        .rows = outputs.tokens,
                        .adapters = adapters};
    if (cache_) {
      tokens.cache = &*cache_;
      tokens.slots = pass.slots;
    }
    const std::vector<float> values =
        model_.log_probabilities(engine_.context(), tokens,
                                 {.targets = outputs.targets, .weights = weights, .rows = outputs.places}, vocabulary_);
    for (std::size_t i = 0; i < values.size(); ++i) {
      RowScore& score = scores_[pass.rows[static_cast<std::size_t>(batch.losses[i].row)]];
      score.log_probability += static_cast<double>(values[i]);
      ++score.tokens;
    }
  }

  ops::Engine& engine_;
  models::LanguageModel& model_;
  std::span<const data::EncodedRow> rows_;
  std::int64_t vocabulary_;
  std::int32_t adapter_ = -1;
  std::vector<Pass> passes_;
  std::optional<nn::KeyValueCache> cache_;
  std::vector<RowScore> scores_;
};

}  // namespace

std::vector<RowScore> score_rows(ops::Engine& engine, models::LanguageModel& model,
                                 std::span<const data::EncodedRow> rows, std::int64_t vocabulary,
                                 const ScoreOptions& options, const std::function<void(std::int64_t)>& on_done) {
  return Scorer(engine, model, rows, vocabulary).run(options, on_done);
}

}  // namespace instruct::evaluate
