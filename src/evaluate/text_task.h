// What an encoder's heads say of rows: labels, sentences, and how good they are.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "data/text_rows.h"
#include "evaluate/task.h"
#include "models/text_model.h"

namespace instruct::evaluate {

// What the heads say of one row.
struct TextAnswer {
  std::string text;                   // as encode_output writes the value
  std::vector<double> probabilities;  // of each label, or of choosing each sentence
  std::vector<double> log_probabilities;
  double log_probability = 0;  // of what is true, where the row says so; else of the answer
  std::vector<float> chosen;   // sentences: 0 or 1
};

// Answers of rows, in order. A label is the most likely one; of labels all with a probability above one half, and the
// most likely ones as far as min_items asks for; of sentences likewise, at least one and at most max_items, in their
// order.
std::vector<TextAnswer> answer_texts(ops::Engine& engine, models::TextModel& model,
                                     const instructions::InstructionSet& set, std::span<const data::TextRow> rows,
                                     const std::function<void(std::int64_t)>& on_done = {});

// Answers and measures rows. Beside the metrics of each verb: of labels precision, recall and F1 of all labels together
// (micro), of sentences those of the choice against the oracle's, and ROUGE of as many first sentences ("lead_").
TaskReport evaluate_texts(ops::Engine& engine, models::TextModel& model, const instructions::InstructionSet& set,
                          const data::Dataset& dataset, std::span<const data::TextRow> rows, const TaskOptions& options,
                          const std::function<void(std::int64_t)>& on_done = {});

// Names of the metrics that evaluate_texts() gives for each verb of the rows.
std::map<std::string, std::vector<std::string>> text_metrics_by_verb(const instructions::InstructionSet& set,
                                                                     const data::Dataset& dataset,
                                                                     const TaskOptions& options);

}  // namespace instruct::evaluate
