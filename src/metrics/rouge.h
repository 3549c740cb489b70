// ROUGE (Lin, 2004) equal to Google's rouge-score, exact match and token F1 with SQuAD's normalisation.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace instruct::metrics {

struct Overlap {
  double precision = 0;
  double recall = 0;
  double f1 = 0;
};

struct RougeOptions {
  bool stemmer = false;
  // rouge-score drops everything but ASCII letters and digits. With this, each CJK character is a token of its own and
  // letters of other scripts are kept.
  bool cjk = false;
};
std::vector<std::string> rouge_tokens(std::string_view text, const RougeOptions& options);

Overlap rouge_n(std::string_view hypothesis, std::string_view reference, int n, const RougeOptions& options);
// Longest common subsequence of the whole texts.
Overlap rouge_l(std::string_view hypothesis, std::string_view reference, const RougeOptions& options);
// Union LCS over lines ("rougeLsum").
Overlap rouge_l_sum(std::string_view hypothesis, std::string_view reference, const RougeOptions& options);

// Lower case, without punctuation, articles and extra space (Rajpurkar et al., 2016).
std::string normalise_answer(std::string_view text);
bool exact_match(std::string_view hypothesis, std::string_view reference);
Overlap token_f1(std::string_view hypothesis, std::string_view reference);

}  // namespace instruct::metrics
