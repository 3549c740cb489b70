// What a training run will need, before its first step: memory by rehearsing its heaviest passes without arithmetic,
// time from a pass of its own rows.
#pragma once

#include <optional>
#include <span>
#include <vector>

#include "adapters/lora.h"
#include "data/layout.h"
#include "models/language_model.h"
#include "train/optimizer.h"
#include "train/token_objective.h"

namespace instruct::bench {

// A run that stands before its first step.
struct Run {
  ops::Engine& engine;
  models::LanguageModel& model;
  train::Optimizer& optimizer;
  const adapters::LoraAdapter* adapter = nullptr;  // null: full tuning
  std::int64_t vocabulary = 0;
  std::span<const data::EncodedRow> rows;
  data::BatchCost evaluation;          // of all evaluations together
  std::int64_t evaluation_tokens = 0;  // of one of its passes, 0: none
  std::int64_t other_bytes = 0;        // needed at some time while no pass runs
};

// Largest resident set of the process with these options, in bytes. Within 10% of what was measured (docs/training.md).
std::int64_t forecast_peak(const Run& run, const train::LoopOptions& options);

// Which options a run takes to stay within `limit` bytes.
struct MemoryPlan {
  std::int64_t pass_rows = 0;
  bool checkpoint = false;
  std::int64_t peak_bytes = 0;
};
// Fewer rows a pass (halved while there are several), then with activation checkpointing from the start: the first that
// fits, or the last. What is learnt stays the same: an optimizer step has as many rows as before.
MemoryPlan plan_memory(const Run& run, train::LoopOptions options, std::int64_t limit);

struct TimeForecast {
  double seconds = 0;  // of all steps that are left and their evaluations' losses
  double tokens_per_second = 0;
};
// Runs one pass of at most about 1,024 tokens a few times (a second or two), and an optimizer step on other memory.
TimeForecast forecast_time(const Run& run, const train::LoopOptions& options, const train::Position& position);

}  // namespace instruct::bench
