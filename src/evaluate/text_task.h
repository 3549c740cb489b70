// How good the answers of an encoder's heads are.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "evaluate/task.h"
#include "evaluate/text_answers.h"

namespace instruct::evaluate {

// Answers and measures rows. Beside the metrics of each verb: of labels precision, recall and F1 of all labels together
// (micro), of sentences those of the choice against the oracle's, and ROUGE of as many first sentences ("lead_"); of
// spans exact match and F1 of words; of extraction those of whole parts with their fields.
TaskReport evaluate_texts(const TextAnswerer& answerer, const data::Dataset& dataset,
                          std::span<const data::TextRow> rows, const TaskOptions& options,
                          const std::function<void(std::int64_t)>& on_done = {});

// The mean loss and perplexity of score_masked(), as one verb "masked".
TaskReport evaluate_masked(ops::Engine& engine, models::TextModel& model, std::size_t task,
                           std::span<const data::TextRow> rows, const std::function<void(std::int64_t)>& on_done = {});
inline constexpr const char* kMaskedVerb = "masked";

// Names of the metrics that evaluate_texts() gives for each verb of the rows.
std::map<std::string, std::vector<std::string>> text_metrics_by_verb(const instructions::InstructionSet& set,
                                                                     const data::Dataset& dataset,
                                                                     const TaskOptions& options);

}  // namespace instruct::evaluate
