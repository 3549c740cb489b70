// Evaluation of a decoder while it is trained: the table of development results, and the metric that counts.
#pragma once

#include <algorithm>

#include "cli/evaluation_table.h"
#include "cli/session.h"
#include "evaluate/task.h"
#include "train/config.h"

namespace instruct::cli {

class DecoderEvaluation {
 public:
  // `dataset` are the development rows; those longer than `cutoff` are left out with a warning. Raises
  // InvalidArgument when config.metric_for_best_model is no metric of these rows, before anything is trained.
  DecoderEvaluation(const train::TrainConfig& config, Session& session, data::Dataset dataset, std::int64_t cutoff);

  bool empty() const { return dataset_.examples.empty(); }
  // Of the losses of one evaluation.
  const data::BatchCost& cost() const { return cost_; }
  // Key/value slots that generated answers fill at a time; 0 where none are generated. The least: one answer.
  std::int64_t slots() const { return std::min(all_slots_, options_.responder.generation.max_slots); }
  void limit_slots(std::int64_t slots) { options_.responder.generation.max_slots = slots; }
  // Logs eval_loss and eval_<metric>, with several verbs also eval_<verb>_<metric>.
  Evaluation run(std::int64_t step, double epoch);
  // "eval_loss" or what metric_for_best_model says.
  const BestMetric& best_metric() const { return table_.best(); }

 private:
  void leave_out_long_rows(const train::TrainConfig& config, std::int64_t cutoff);
  void measure(const train::TrainConfig& config);

  Session& session_;
  data::Dataset dataset_;
  evaluate::TaskOptions options_;
  EvaluationTable table_;
  data::BatchCost cost_;
  std::int64_t all_slots_ = 0;  // of all answers together
};

}  // namespace instruct::cli
