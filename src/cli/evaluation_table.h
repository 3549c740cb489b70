// What evaluations while training say: the log's keys, the table on the screen, and the metric that decides which step
// is best.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "cli/train_loop.h"
#include "evaluate/task.h"
#include "train/config.h"

namespace instruct::cli {

class EvaluationTable {
 public:
  EvaluationTable() = default;
  // `metrics`: names by verb. Raises InvalidArgument when config.metric_for_best_model is none of them, before anything
  // is trained; `hint` is what could add some.
  EvaluationTable(const train::TrainConfig& config, const std::map<std::string, std::vector<std::string>>& metrics,
                  const std::string& hint);

  const BestMetric& best() const { return best_; }
  // Of one evaluation, with a likelihood. The first has the table's heading.
  Evaluation of(const evaluate::TaskReport& report, std::int64_t step, double epoch);

 private:
  // "eval_loss" or what a metric of one of several verbs is called.
  std::string key(const std::string& verb, const std::string& metric) const;
  std::string lines(const evaluate::TaskReport& report, std::int64_t step, double epoch);

  std::vector<std::string> columns_;  // metrics of all verbs
  std::size_t verbs_ = 0;
  BestMetric best_;
  bool headed_ = false;
};

}  // namespace instruct::cli
