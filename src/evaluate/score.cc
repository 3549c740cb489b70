#include "evaluate/score.h"

#include <algorithm>
#include <numeric>

#include "base/cancel.h"

namespace instruct::evaluate {
namespace {

void score_batch(ops::Engine& engine, models::Llama& model, const data::Batch& batch, std::int64_t vocabulary,
                 std::span<const std::size_t> rows, std::vector<RowScore>& scores) {
  const data::Outputs outputs = data::outputs_of(batch);
  if (outputs.tokens.empty()) return;
  const std::vector<float> weights(outputs.targets.size(), 0.0F);
  const std::vector<float> values = model.log_probabilities(
      engine.context(),
      {.tokens = batch.tokens, .positions = batch.positions, .plan = &batch.plan, .rows = outputs.tokens},
      {.targets = outputs.targets, .weights = weights, .rows = outputs.places}, vocabulary);
  for (std::size_t i = 0; i < values.size(); ++i) {
    RowScore& score = scores[rows[static_cast<std::size_t>(batch.losses[i].row)]];
    score.log_probability += static_cast<double>(values[i]);
    ++score.tokens;
  }
}

}  // namespace

std::vector<RowScore> score_rows(ops::Engine& engine, models::Llama& model, std::span<const data::EncodedRow> rows,
                                 std::int64_t vocabulary, const ScoreOptions& options,
                                 const std::function<void(std::int64_t)>& on_done) {
  std::vector<RowScore> scores(rows.size());
  // Rows in token order: those that share a prefix meet in one batch.
  std::vector<std::size_t> order(rows.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  if (options.layout == data::Layout::kTree) {
    std::stable_sort(order.begin(), order.end(),
                     [&](std::size_t a, std::size_t b) { return rows[a].tokens < rows[b].tokens; });
  }
  std::size_t begin = 0;
  while (begin < order.size()) {
    throw_if_cancelled("scoring");
    std::vector<const data::EncodedRow*> chosen;
    std::size_t end = begin;
    std::int64_t tokens = 0;
    while (end < order.size()) {
      const data::EncodedRow& row = rows[order[end]];
      // What a row adds: all of it, or in a tree what it does not share with its neighbour.
      std::int64_t added = data::computed_tokens(row);
      if (options.layout == data::Layout::kTree && end > begin) {
        const auto& before = rows[order[end - 1]].tokens;
        const auto difference = std::mismatch(row.tokens.begin(), row.tokens.end(), before.begin(), before.end());
        const auto shared = difference.first - row.tokens.begin();
        if (shared >= data::kMinSharedTokens) added -= shared;
      }
      if (end > begin && tokens + added > options.batch_tokens) break;
      tokens += added;
      chosen.push_back(&row);
      ++end;
    }
    score_batch(engine, model, data::make_batch(chosen, options.layout), vocabulary,
                std::span(order).subspan(begin, end - begin), scores);
    begin = end;
    if (on_done) on_done(static_cast<std::int64_t>(begin));
  }
  return scores;
}

}  // namespace instruct::evaluate
