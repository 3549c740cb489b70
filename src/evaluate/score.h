// Likelihood of given answers: log P(y | I, x) a row.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/layout.h"
#include "models/language_model.h"
#include "ops/engine.h"

namespace instruct::evaluate {

struct RowScore {
  double log_probability = 0;  // natural log, summed over the trained tokens
  std::int64_t tokens = 0;     // how many those are
};

struct ScoreOptions {
  data::Layout layout = data::Layout::kTree;
  std::int64_t batch_tokens = 2048;  // computed tokens a pass, roughly
  std::int32_t adapter = -1;         // of the adapters::AdapterSet on the model; -1: none
};

// Scores rows in the order given. `on_done` gets the number of finished rows. Raises Cancelled on Ctrl-C.
std::vector<RowScore> score_rows(ops::Engine& engine, models::LanguageModel& model,
                                 std::span<const data::EncodedRow> rows, std::int64_t vocabulary,
                                 const ScoreOptions& options = {},
                                 const std::function<void(std::int64_t)>& on_done = {});

}  // namespace instruct::evaluate
