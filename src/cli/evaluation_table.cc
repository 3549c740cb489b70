#include "cli/evaluation_table.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"

namespace instruct::cli {
namespace {

std::string shown(const std::string& verb) {
  return verb.empty() ? "dialogue" : verb;
}

}  // namespace

EvaluationTable::EvaluationTable(const train::TrainConfig& config,
                                 const std::map<std::string, std::vector<std::string>>& metrics,
                                 const std::string& hint)
    : verbs_(metrics.size()) {
  std::vector<std::string> known{"eval_loss"};
  for (const auto& [verb, names] : metrics) {
    for (const std::string& name : names) {
      known.push_back(key(verb, name));
      if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) columns_.push_back(name);
    }
  }
  best_.name = config.metric_for_best_model;
  if (!best_.name.starts_with("eval_")) best_.name = "eval_" + best_.name;
  if (std::find(known.begin(), known.end(), best_.name) == known.end()) {
    raise(ErrorCategory::kInvalidArgument, "metric_for_best_model '{}': these rows have {}{}",
          config.metric_for_best_model, fmt::format("{}", fmt::join(known, ", ")), hint);
  }
  const bool greater = config.greater_is_better.value_or(best_.name != "eval_loss");
  best_.better = greater ? train::TrainingState::Direction::kGreater : train::TrainingState::Direction::kLess;
}

std::string EvaluationTable::key(const std::string& verb, const std::string& metric) const {
  return verbs_ > 1 ? "eval_" + shown(verb) + "_" + metric : "eval_" + metric;
}

Evaluation EvaluationTable::of(const evaluate::TaskReport& report, std::int64_t step, double epoch) {
  Evaluation evaluation{.log = Value::object({{"current_steps", step}, {"epoch", epoch}})};
  evaluation.log.set("eval_loss", evaluate::mean_loss(report));
  for (const evaluate::VerbReport& verb : report.verbs) {
    if (verbs_ > 1) evaluation.log.set(key(verb.verb, "loss"), verb.loss);
    for (const metrics::MetricValue& metric : verb.metrics)
      evaluation.log.set(key(verb.verb, metric.name), metric.value);
  }
  evaluation.log.set("eval_runtime", report.seconds);
  evaluation.metric = evaluation.log.at(best_.name).as_double();
  evaluation.table_lines = lines(report, step, epoch);
  return evaluation;
}

std::string EvaluationTable::lines(const evaluate::TaskReport& report, std::int64_t step, double epoch) {
  std::size_t width = 8;
  for (const evaluate::VerbReport& verb : report.verbs) width = std::max(width, shown(verb.verb).size());
  std::string text;
  if (!headed_) {
    text += fmt::format("  {:>6} {:>7}  {:<{}} {:>8}", "epoch", "step", "verb", width, "loss");
    for (const std::string& column : columns_) text += fmt::format(" {:>9}", column);
    text += '\n';
    headed_ = true;
  }
  for (const evaluate::VerbReport& verb : report.verbs) {
    text += fmt::format("  {:>6.2f} {:>7}  {:<{}} {:>8.4f}", epoch, step, shown(verb.verb), width, verb.loss);
    for (const std::string& column : columns_) {
      const auto found = std::find_if(verb.metrics.begin(), verb.metrics.end(),
                                      [&](const metrics::MetricValue& metric) { return metric.name == column; });
      text += found == verb.metrics.end() ? fmt::format(" {:>9}", "") : fmt::format(" {:>9.2f}", found->value);
    }
    text += '\n';
  }
  return text;
}

}  // namespace instruct::cli
