// What an encoder with heads learns from texts: the mean of -log P over labelled texts, sentences, ends of spans, words
// or masked tokens (data::units_of).
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "data/text_rows.h"
#include "models/text_model.h"
#include "ops/engine.h"
#include "train/objective.h"
#include "train/trainer.h"

namespace instruct::train {

// What a pass over rows computes beside scores.
data::BatchCost cost_of(const data::TextBatch& batch);

class HeadObjective : public Objective {
 public:
  // Rows of an epoch (templates may differ from epoch to epoch). They stay as they are until the next call.
  using RowSource = std::function<const std::vector<data::TextRow>&(std::int64_t epoch)>;
  struct Parts {
    ops::Engine& engine;
    models::TextModel& model;
    std::vector<std::size_t> tasks;  // of the model, by verb of the instruction set
    RowSource rows;
    float dropout = 0;
    // Called before each pass of a step (dropout of adapters); may be empty.
    std::function<void(std::int64_t step, std::int64_t pass)> before_pass = {};
  };
  // What `parts` refers to must outlive the objective. Asks for the rows of the first epoch.
  HeadObjective(Parts parts, const LoopOptions& options);

  std::int64_t rows() const override { return row_count_; }
  std::vector<std::int64_t> order(std::int64_t epoch) override;
  std::int64_t units(std::span<const std::int64_t> rows) const override;
  PassTotals add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) override;

 private:
  Parts parts_;
  LoopOptions options_;
  std::int64_t row_count_;
  std::span<const data::TextRow> rows_;  // of the epoch
};

// The loss of rows side by side, summed over units; with `weight` above 0 also adds weight * its gradient.
double head_loss(ops::Engine& engine, models::TextModel& model, std::span<const std::size_t> tasks,
                 std::span<const data::TextRow* const> rows, float weight, const nn::Dropout& dropout, bool checkpoint,
                 data::BatchCost* cost = nullptr);

}  // namespace instruct::train
