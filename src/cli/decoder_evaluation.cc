#include "cli/decoder_evaluation.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/text.h"
#include "data/encode.h"

namespace instruct::cli {
namespace {

std::string shown(const std::string& verb) {
  return verb.empty() ? "dialogue" : verb;
}

// Whether some verb of the rows names metrics of its own: then they are shown without being asked for.
bool names_metrics(const instructions::InstructionSet* set, const data::Dataset& dataset) {
  return set != nullptr && std::any_of(dataset.examples.begin(), dataset.examples.end(), [&](const auto& example) {
           return !example.verb.empty() && !set->instruction(example.verb).metrics.empty();
         });
}

}  // namespace

DecoderEvaluation::DecoderEvaluation(const train::TrainConfig& config, Session& session, data::Dataset dataset,
                                     std::int64_t cutoff)
    : session_(session), dataset_(std::move(dataset)) {
  if (dataset_.examples.empty()) return;
  leave_out_long_rows(config, cutoff);
  if (config.max_eval_rows > 0 && static_cast<std::int64_t>(dataset_.examples.size()) > config.max_eval_rows)
    dataset_.examples.resize(static_cast<std::size_t>(config.max_eval_rows));
  const bool text = dataset_.format == data::RowFormat::kText;
  options_ = {
      .shots = config.shots,
      .generate = !text && config.predict_with_generate.value_or(config.eval_strategy != "steps" &&
                                                                 names_metrics(session.instruction_set(), dataset_)),
      .likelihood = true,
      .bootstrap = 0,
      .seed = config.seed};
  choose_metric(config);
  measure(config);
}

void DecoderEvaluation::measure(const train::TrainConfig& config) {
  const data::RowEncoder encoder(*session_.dialogue, session_.instruction_set());
  const data::EncodeOptions encode{.shots = config.shots, .seed = config.seed};
  for (std::size_t i = 0; i < dataset_.examples.size(); ++i) {
    const data::EncodedRow row = encoder.encode(dataset_, i, encode);
    const std::int64_t tokens = data::computed_tokens(row);
    cost_ += {.tokens = tokens, .attended = tokens * (tokens + 1) / 2, .predictions = row.trained_tokens()};
    const std::string& verb = dataset_.examples[i].verb;
    const instructions::InstructionSet* set = session_.instruction_set();
    if (options_.generate)
      all_slots_ += tokens + (set != nullptr && !verb.empty() ? set->instruction(verb).output.max_tokens : 256);
  }
}

void DecoderEvaluation::leave_out_long_rows(const train::TrainConfig& config, std::int64_t cutoff) {
  const data::RowEncoder encoder(*session_.dialogue, session_.instruction_set());
  const data::EncodeOptions encode{.shots = config.shots, .seed = config.seed};
  std::vector<data::Example> fitting;
  for (std::size_t i = 0; i < dataset_.examples.size(); ++i) {
    const auto length = static_cast<std::int64_t>(encoder.encode(dataset_, i, encode).tokens.size());
    if (length <= cutoff) {
      fitting.push_back(dataset_.examples[i]);
    } else if (config.overflow == "raise") {
      raise(ErrorCategory::kBadData, "{} has {} tokens, cutoff_len is {}: raise it, or choose overflow drop",
            dataset_.where(dataset_.examples[i]), length, cutoff);
    }
  }
  const std::size_t left_out = dataset_.examples.size() - fitting.size();
  if (fitting.empty())
    raise(ErrorCategory::kBadData, "{}: every row is longer than {} tokens", dataset_.origin, cutoff);
  if (left_out > 0)
    log_warning("{}: {} rows longer than {} tokens are not evaluated", dataset_.origin, left_out, cutoff);
  dataset_.examples = std::move(fitting);
}

void DecoderEvaluation::choose_metric(const train::TrainConfig& config) {
  const auto by_verb = evaluate::metrics_by_verb(session_.instruction_set(), dataset_, options_);
  verbs_ = by_verb.size();
  std::vector<std::string> known{"eval_loss"};
  for (const auto& [verb, names] : by_verb) {
    for (const std::string& name : names) {
      known.push_back(key(verb, name));
      if (std::find(columns_.begin(), columns_.end(), name) == columns_.end()) columns_.push_back(name);
    }
  }
  best_.name = config.metric_for_best_model;
  if (!best_.name.starts_with("eval_")) best_.name = "eval_" + best_.name;
  if (std::find(known.begin(), known.end(), best_.name) == known.end()) {
    raise(ErrorCategory::kInvalidArgument, "metric_for_best_model '{}': these rows have {}{}",
          config.metric_for_best_model, fmt::format("{}", fmt::join(known, ", ")),
          options_.generate ? "" : "; predict_with_generate: true adds those of generated answers");
  }
  const bool greater = config.greater_is_better.value_or(best_.name != "eval_loss");
  best_.better = greater ? train::TrainingState::Direction::kGreater : train::TrainingState::Direction::kLess;
}

std::string DecoderEvaluation::key(const std::string& verb, const std::string& metric) const {
  return verbs_ > 1 ? "eval_" + shown(verb) + "_" + metric : "eval_" + metric;
}

Evaluation DecoderEvaluation::run(std::int64_t step, double epoch) {
  Progress progress("Evaluating", static_cast<std::int64_t>(dataset_.examples.size()), "rows");
  const evaluate::TaskReport report =
      evaluate::evaluate_rows(*session_.engine, *session_.package.model, *session_.dialogue, session_.instruction_set(),
                              dataset_, options_, [&](std::int64_t done) { progress.update(done); });
  progress.drop();
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

std::string DecoderEvaluation::lines(const evaluate::TaskReport& report, std::int64_t step, double epoch) {
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
