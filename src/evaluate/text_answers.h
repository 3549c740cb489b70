// What an encoder's heads say of rows: labels, sentences, spans, words.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include "data/text_rows.h"
#include "evaluate/score.h"
#include "instructions/extraction.h"
#include "models/text_model.h"

namespace instruct::evaluate {

// An encoder with heads, and the instruction set that it answers for. All must outlive the uses of it.
struct TextAnswerer {
  ops::Engine& engine;
  models::TextModel& model;
  std::span<const std::size_t> tasks;  // of the model, by verb
  const instructions::InstructionSet& set;
};

// What the heads say of one example.
struct TextAnswer {
  std::string text;                   // as encode_output writes the value
  std::vector<double> probabilities;  // of each label, or of choosing each sentence
  std::vector<double> log_probabilities;
  double log_probability = 0;  // of what is true, where the row says so; else of the answer
  std::int64_t units = 0;      // what that is summed over (data::units_of); of a span its two ends
  std::vector<float> chosen;   // sentences: 0 or 1
  // Spans and extraction: what was found, and what is true where the row says so.
  std::vector<instructions::FoundSpan> found, truth;
};

// Answers of examples (data::by_example), in order. A label is the most likely one; of labels all with a probability
// above one half, and the most likely ones as far as min_items asks for; of sentences likewise, at least one and at
// most max_items, in their order. A span is the likeliest of at most max_tokens tokens of its text, P(start) P(end),
// over all windows. Of extraction every word has its likeliest tag; a part begins at B, and at an I that no part of its
// field goes before.
std::vector<TextAnswer> answer_texts(const TextAnswerer& answerer, std::span<const data::TextRow> rows,
                                     const std::function<void(std::int64_t)>& on_done = {});

// log P of the tokens that were left out of each text (data::masked_rows), by the head of masked words.
std::vector<RowScore> score_masked(ops::Engine& engine, models::TextModel& model, std::size_t task,
                                   std::span<const data::TextRow> rows,
                                   const std::function<void(std::int64_t)>& on_done = {});

}  // namespace instruct::evaluate
