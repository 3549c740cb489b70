// The training loop: optimizer steps over micro-batches, with observers for everything that is not training itself.
//
// The loss of a step is the sum of -log P over all its trained tokens, divided once by their number: micro-batch size,
// packing and branching change nothing but the order of additions.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/layout.h"
#include "models/llama.h"
#include "ops/engine.h"
#include "train/optimizer.h"
#include "train/schedule.h"

namespace instruct::train {

// Passes of a step: one a row, rows side by side, rows as a tree, or whichever of these choose_packing names.
enum class Packing { kRows, kPacked, kTree, kAuto };

struct LoopOptions {
  std::int64_t micro_batch_rows = 8;
  std::int64_t accumulation = 1;
  std::int64_t pass_rows = 0;  // rows computed at a time, where fewer than a micro-batch; 0: all of it
  Packing packing = Packing::kPacked;
  bool shuffle = true;
  bool checkpoint = false;  // activation checkpointing, a block at a time
  std::uint64_t seed = 42;
  double epochs = 1;
  std::int64_t max_steps = -1;  // above 0: overrides epochs
};

// What a pass of this model costs beside its linear layers.
data::CostModel cost_model_of(const models::LlamaConfig& config);

// Predicted cost of the first steps of an epoch in each way, in tokens through the linear layers, and the cheapest.
// Deterministic. `options.packing` is not read.
struct PackingChoice {
  Packing packing = Packing::kPacked;
  double rows = 0;
  double packed = 0;
  double tree = 0;
};
PackingChoice choose_packing(std::span<const data::EncodedRow> rows, const LoopOptions& options,
                             const data::CostModel& model);

// Where training stands. Everything a resumed run needs beside the parameters.
struct Position {
  std::int64_t step = 0;   // optimizer steps done
  std::int64_t epoch = 0;  // current epoch
  std::int64_t row = 0;    // rows of the current epoch already used; all of them until its end is dealt with
  std::int64_t trained_tokens = 0;
};

struct StepReport {
  std::int64_t step = 0;
  std::int64_t total_steps = 0;
  double epoch = 0;          // with fraction
  double loss = 0;           // mean over the step's trained tokens
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  data::BatchCost cost;  // computed tokens (shared prefixes once), attended pairs, predictions
  std::int64_t trained_tokens = 0;
  double seconds = 0;
};

// What the loop tells others. Return true from on_step to stop (early stopping).
struct Observer {
  std::function<bool(const StepReport&)> on_step;
  // After the last step of an epoch, whole or not (with fraction); returns true to stop.
  std::function<bool(double epoch)> on_epoch_end;
  // Called before each forward and backward pass of a step (dropout streams).
  std::function<void(std::int64_t step, std::int64_t micro_batch)> before_pass;
};

// Rows of an epoch (templates may differ from epoch to epoch).
using RowSource = std::function<const std::vector<data::EncodedRow>&(std::int64_t epoch)>;

// Negative log likelihood of a batch, summed; with `weight` above 0 also adds weight * its gradient to the parameters.
// `checkpoint`: activation checkpointing, a block at a time.
double batch_loss(ops::Engine& engine, models::Llama& model, const data::Batch& batch, float weight,
                  std::int64_t vocabulary, bool checkpoint = false);

// The micro-batches of every step that a run makes from `position` on, over the rows of the first epoch: what it will
// compute, for forecasts. Return false to end.
void for_each_step(std::span<const data::EncodedRow> rows, const LoopOptions& options, Position position,
                   const std::function<bool(const std::vector<data::Batch>& step)>& body);

class Trainer {
 public:
  // All references must outlive the trainer. `vocabulary` counts the logits that take part.
  Trainer(ops::Engine& engine, models::Llama& model, Optimizer& optimizer, const Schedule& schedule,
          const LoopOptions& options, std::int64_t vocabulary);

  // Steps an epoch of `rows` rows takes, and all together.
  static std::int64_t steps_per_epoch(std::int64_t rows, const LoopOptions& options);
  static std::int64_t total_steps(std::int64_t rows, const LoopOptions& options);

  // Runs from `position` to the end, updating it after every step. Raises Numeric, with step, learning rate and
  // gradient norm, when the loss or gradient is not finite (the parameters are then those before the step), and
  // Cancelled when a stop was asked for (position is then after the last finished step).
  void run(const RowSource& rows, std::int64_t row_count, Position& position, const Observer& observer);

 private:
  StepReport step(std::span<const data::EncodedRow* const> rows, const Position& position, const Observer& observer);

  ops::Engine& engine_;
  models::Llama& model_;
  Optimizer& optimizer_;
  Schedule schedule_;
  LoopOptions options_;
  std::int64_t vocabulary_;
};

}  // namespace instruct::train
