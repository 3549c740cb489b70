#include "data/cloze.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "base/text.h"

namespace instruct::data {
namespace {

Verbalisers::Word tokens_of(const tokenizers::Tokenizer& tokenizer, const std::string& word, bool behind_space) {
  const std::string text = behind_space ? " " + word : word;
  Verbalisers::Word ids;
  for (const tokenizers::Token& token : tokenizer.encode_plain(text)) {
    // SentencePiece's mark of a word may be a token of its own.
    if (trim(std::string_view(text).substr(token.begin, token.end - token.begin)).empty()) continue;
    if (trim(tokenizer.token_bytes(token.id)).empty()) continue;
    ids.push_back(token.id);
  }
  return ids;
}

}  // namespace

Verbalisers verbalisers_of(const tokenizers::Tokenizer& tokenizer, const instructions::Instruction& instruction,
                           std::string_view wording) {
  const std::size_t gap = wording.find(instructions::kMaskMark);
  const bool behind_space = gap != std::string_view::npos && gap > 0 && wording[gap - 1] == ' ';
  Verbalisers result;
  const instructions::OutputSpec& output = instruction.output;
  for (std::size_t label = 0; label < output.labels.size(); ++label) {
    std::vector<Verbalisers::Word>& words = result.labels.emplace_back();
    const std::vector<std::string> own =
        output.verbalisers.empty() ? std::vector{output.labels[label]} : output.verbalisers[label];
    for (const std::string& word : own) {
      words.push_back(tokens_of(tokenizer, word, behind_space));
      const auto unknown = tokenizer.spec().unknown;
      if (words.back().empty() ||
          (unknown && std::find(words.back().begin(), words.back().end(), *unknown) != words.back().end()))
        raise(ErrorCategory::kBadData,
              "verb '{}': the model's vocabulary has no tokens for the verbaliser '{}': give another word",
              instruction.verb, word);
      result.masks = std::max(result.masks, words.back().size());
    }
  }
  return result;
}

void ClozeScores::add(const Verbalisers& verbalisers, std::size_t first) {
  const std::size_t gap = labels_.size();
  labels_.push_back(verbalisers.labels.size());
  for (std::size_t label = 0; label < verbalisers.labels.size(); ++label) {
    for (const Verbalisers::Word& word : verbalisers.labels[label]) {
      const double part = 1.0 / static_cast<double>(verbalisers.labels[label].size() * word.size());
      for (std::size_t i = 0; i < word.size(); ++i) {
        rows_.push_back(static_cast<std::int32_t>(first + i));
        targets_.push_back(word[i]);
        shares_.push_back({gap, label, part});
      }
    }
  }
}

std::vector<std::vector<double>> ClozeScores::of(std::span<const float> log_probabilities) const {
  std::vector<std::vector<double>> scores;
  for (const std::size_t labels : labels_) scores.emplace_back(labels, 0.0);
  for (std::size_t i = 0; i < shares_.size(); ++i)
    scores[shares_[i].gap][shares_[i].label] += shares_[i].part * static_cast<double>(log_probabilities[i]);
  return scores;
}

std::vector<float> ClozeScores::weights(const std::vector<std::vector<double>>& by_score) const {
  std::vector<float> result;
  for (const Share& share : shares_)
    result.push_back(static_cast<float>(share.part * by_score[share.gap][share.label]));
  return result;
}

std::vector<double> log_softmax(std::span<const double> scores) {
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (const double score : scores) sum += std::exp(score - most);
  std::vector<double> result;
  for (const double score : scores) result.push_back(score - most - std::log(sum));
  return result;
}

}  // namespace instruct::data
