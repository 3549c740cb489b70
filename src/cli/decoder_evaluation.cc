#include "cli/decoder_evaluation.h"

#include <algorithm>

#include "base/error.h"
#include "base/log.h"
#include "base/progress.h"
#include "data/encode.h"

namespace instruct::cli {
namespace {

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
  table_ = EvaluationTable(config, evaluate::metrics_by_verb(session.instruction_set(), dataset_, options_),
                           options_.generate ? "" : "; predict_with_generate: true adds those of generated answers");
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

Evaluation DecoderEvaluation::run(std::int64_t step, double epoch) {
  Progress progress("Evaluating", static_cast<std::int64_t>(dataset_.examples.size()), "rows");
  const evaluate::TaskReport report =
      evaluate::evaluate_rows(*session_.engine, *session_.package.model, *session_.dialogue, session_.instruction_set(),
                              dataset_, options_, [&](std::int64_t done) { progress.update(done); });
  progress.drop();
  return table_.of(report, step, epoch);
}

}  // namespace instruct::cli
