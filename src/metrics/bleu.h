// Corpus BLEU (Papineni et al., 2002) equal to sacreBLEU (Post, 2018), and chrF (Popovic, 2015).
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace instruct::metrics {

enum class BleuTokenizer { k13a, kIntl, kZh, kChar, kNone };
// "13a", "intl", "zh", "char" or "none". Raises Unsupported for sacreBLEU's tokenisers that need outside models.
BleuTokenizer bleu_tokenizer_from_name(std::string_view name);
std::vector<std::string> bleu_tokens(std::string_view text, BleuTokenizer tokenizer);

// Counts a score is made from; they add up over rows.
struct BleuCounts {
  std::array<std::int64_t, 4> matches{};
  std::array<std::int64_t, 4> totals{};
  std::int64_t hypothesis_length = 0;
  std::int64_t reference_length = 0;  // of the reference nearest in length
  void add(const BleuCounts& other);
};
BleuCounts bleu_counts(std::string_view hypothesis, std::span<const std::string> references, BleuTokenizer tokenizer,
                       bool lowercase = false);
// 0 to 100, with sacreBLEU's exponential smoothing.
double bleu_score(const BleuCounts& counts);

struct ChrfCounts {
  std::vector<double> hypothesis, reference, matches;  // per order
  void add(const ChrfCounts& other);
};
// Character n-grams up to 6, and with `word_order` 2 word n-grams too (chrF++).
ChrfCounts chrf_counts(std::string_view hypothesis, std::string_view reference, int word_order = 0);
double chrf_score(const ChrfCounts& counts, double beta = 2.0);

}  // namespace instruct::metrics
