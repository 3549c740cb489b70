// Resumable training state in checkpoint folders: checkpoint-<step>/ with the adapter (or model) files and state.
//
// A folder is written under a temporary name and renamed, so that one that exists is complete; its numbers carry a
// SHA-256 that is checked when it is read.
#pragma once

#include <filesystem>
#include <functional>
#include <optional>

#include "base/value.h"
#include "train/optimizer.h"
#include "train/trainer.h"

namespace instruct::train {

struct TrainingState {
  Position position;
  double best_metric = 0;
  bool has_best = false;
  std::int64_t best_step = 0;
  std::int64_t evaluations_without_improvement = 0;
  std::int64_t evaluated_step = 0;  // of the last evaluation
  Value log = Value::array();       // log_history
  std::int64_t pass_rows = 0;       // what memory_limit chose; 0: nothing
  bool checkpoint = false;

  // Takes the metric of an evaluation at the current step; true when it is the best so far.
  enum class Direction { kLess, kGreater };
  bool judge(double metric, Direction better);
};

// Writes output/checkpoint-<step>. `write_model` adds the model or adapter files to the folder it is given.
std::filesystem::path save_checkpoint(const std::filesystem::path& output, const TrainingState& state,
                                      const Optimizer& optimizer, const Value& config,
                                      const std::function<void(const std::filesystem::path&)>& write_model);

// Reads masters, moments and state back. Raises BadData when the folder belongs to another set of parameters or is
// damaged. `config`, where given, gets the configuration it was saved with.
TrainingState load_checkpoint(const std::filesystem::path& folder, Optimizer& optimizer, Value* config = nullptr);

// Deletes what a killed run left half-written in `output`.
void remove_unfinished(const std::filesystem::path& output);

// The checkpoint with the highest step that is whole; damaged ones are passed over with a warning.
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& output);

// Deletes all checkpoints: those of a run that is being replaced.
void remove_checkpoints(const std::filesystem::path& output);

// Deletes the oldest checkpoints until `keep` are left (0 keeps all); `protect` is never deleted.
void prune_checkpoints(const std::filesystem::path& output, std::int64_t keep, std::int64_t protect_step);

}  // namespace instruct::train
