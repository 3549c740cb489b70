// What a decoder learns from rows of tokens: the mean of -log P over the trained tokens of a step.
//
// Micro-batch size, packing and branching change nothing but the order of additions.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "data/layout.h"
#include "models/language_model.h"
#include "ops/engine.h"
#include "train/objective.h"
#include "train/trainer.h"

namespace instruct::train {

// What a pass of this model costs beside its linear layers.
data::CostModel cost_model_of(const models::ModelSizes& sizes);

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

// The micro-batches of every step that a run makes from `position` on, over the rows of the first epoch: what it will
// compute, for forecasts. Return false to end.
void for_each_step(std::span<const data::EncodedRow> rows, const LoopOptions& options, Position position,
                   const std::function<bool(const std::vector<data::Batch>& step)>& body);

// Negative log likelihood of a batch, summed, and where a model's configuration asks for it (output_router_logits) the
// balance of its experts over the batch, times router_aux_loss_coef and the number of predictions; over the tokens that
// are computed, which those behind the last trained one of a row are not; with `weight` above 0 also adds weight * its
// gradient to the parameters. `checkpoint`: activation checkpointing, a block at a time.
double batch_loss(ops::Engine& engine, models::LanguageModel& model, const data::Batch& batch, float weight,
                  std::int64_t vocabulary, bool checkpoint = false);

// Rows of an epoch (templates may differ from epoch to epoch). They stay as they are until the next call.
using RowSource = std::function<const std::vector<data::EncodedRow>&(std::int64_t epoch)>;

class TokenObjective : public Objective {
 public:
  struct Parts {
    ops::Engine& engine;
    models::LanguageModel& model;
    std::int64_t vocabulary = 0;  // logits that take part
    RowSource rows;
    // Called before each forward and backward pass of a step (dropout streams); may be empty.
    std::function<void(std::int64_t step, std::int64_t pass)> before_pass = {};
  };
  // What `parts` refers to must outlive the objective. Asks for the rows of the first epoch.
  TokenObjective(Parts parts, const LoopOptions& options);

  std::int64_t rows() const override { return row_count_; }
  std::vector<std::int64_t> order(std::int64_t epoch) override;
  std::int64_t units(std::span<const std::int64_t> rows) const override;  // trained tokens
  PassTotals add_gradients(std::span<const std::int64_t> rows, float weight, std::int64_t step) override;

 private:
  Parts parts_;
  LoopOptions options_;
  std::int64_t row_count_;
  std::span<const data::EncodedRow> rows_;  // of the epoch
};

}  // namespace instruct::train
