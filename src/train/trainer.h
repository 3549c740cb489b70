// The training loop: optimizer steps over the rows of an objective, with observers for everything that is not training
// itself.
#pragma once

#include <cstdint>
#include <functional>
#include <span>

#include "ops/engine.h"
#include "train/objective.h"
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

  std::int64_t step_rows() const { return micro_batch_rows * accumulation; }
  // Steps an epoch of `rows` rows takes, and all together.
  std::int64_t steps_per_epoch(std::int64_t rows) const;
  std::int64_t total_steps(std::int64_t rows) const;
};

// Where training stands. Everything a resumed run needs beside the parameters.
struct Position {
  std::int64_t step = 0;   // optimizer steps done
  std::int64_t epoch = 0;  // current epoch
  std::int64_t row = 0;    // rows of the current epoch already used; all of them until its end is dealt with
  std::int64_t units = 0;  // trained on so far
};

struct StepReport {
  std::int64_t step = 0;
  std::int64_t total_steps = 0;
  double epoch = 0;          // with fraction
  double loss = 0;           // mean over the step's units
  double gradient_norm = 0;  // before clipping
  double learning_rate = 0;
  data::BatchCost cost;  // computed tokens (shared prefixes once), attended pairs, predictions
  std::int64_t units = 0;
  double seconds = 0;
};

// What the loop tells others. Return true from on_step to stop (early stopping).
struct Observer {
  std::function<bool(const StepReport&)> on_step;
  // After the last step of an epoch, whole or not (with fraction); returns true to stop.
  std::function<bool(double epoch)> on_epoch_end;
};

class Trainer {
 public:
  // All references must outlive the trainer. A step takes `step_rows` rows, the last one of an epoch what is left; the
  // end is the schedule's.
  Trainer(ops::Engine& engine, Objective& objective, Optimizer& optimizer, const Schedule& schedule,
          std::int64_t step_rows);

  // Runs from `position` to the end, updating it after every step. Raises Numeric, with step, learning rate and
  // gradient norm, when the loss or gradient is not finite (the parameters are then those before the step), Cancelled
  // when a stop was asked for (position is then after the last finished step), and BadData for an epoch without rows or
  // a step without units.
  void run(Position& position, const Observer& observer);

 private:
  StepReport step(std::span<const std::int64_t> rows, const Position& position);

  ops::Engine& engine_;
  Objective& objective_;
  Optimizer& optimizer_;
  Schedule schedule_;
  std::int64_t step_rows_;
};

}  // namespace instruct::train
