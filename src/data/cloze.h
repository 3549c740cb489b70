// Cloze: labels scored by the words that stand for them, their verbalisers, at the gap of a wording.
//
// A label's score is the mean over its verbalisers of the mean log probability of their tokens, and the labels'
// probabilities are the softmax of the scores (Schick and Schütze, "Exploiting cloze questions for few-shot text
// classification", 2021). A gap has as many masks as the longest verbaliser has tokens; a shorter one is read off the
// first of them (Schick and Schütze, "It's not just size that matters", 2021), so that one pass serves all.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "instructions/instruction_set.h"
#include "tokenizers/tokenizer.h"

namespace instruct::data {

struct Verbalisers {
  using Word = std::vector<std::int32_t>;  // tokens
  std::vector<std::vector<Word>> labels;   // by label of the set
  std::size_t masks = 0;                   // of a gap
};

// The verbalisers as tokens. `wording` is a template: behind a space its words begin with one too. Raises BadData for a
// verbaliser that the vocabulary does not have.
Verbalisers verbalisers_of(const tokenizers::Tokenizer& tokenizer, const instructions::Instruction& instruction,
                           std::string_view wording);

// What has to be predicted for the scores of gaps: targets[i] at row rows[i] of the masks.
class ClozeScores {
 public:
  // A gap whose first mask is row `first`.
  void add(const Verbalisers& verbalisers, std::size_t first);

  const std::vector<std::int32_t>& rows() const { return rows_; }
  const std::vector<std::int32_t>& targets() const { return targets_; }
  // Scores of labels by gap, given log P of the targets.
  std::vector<std::vector<double>> of(std::span<const float> log_probabilities) const;
  // For the gradient: how much the sum of `by_score`, factors by gap and label, of the scores grows with each log P.
  std::vector<float> weights(const std::vector<std::vector<double>>& by_score) const;

 private:
  struct Share {
    std::size_t gap = 0, label = 0;
    double part = 0;  // of the label's score
  };
  std::vector<std::int32_t> rows_, targets_;
  std::vector<Share> shares_;        // by target
  std::vector<std::size_t> labels_;  // how many there are, by gap
};

// Natural logs of the softmax.
std::vector<double> log_softmax(std::span<const double> scores);

}  // namespace instruct::data
