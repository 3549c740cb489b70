#include "metrics/rouge.h"

#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "base/text.h"
#include "metrics/stemmer.h"

namespace instruct::metrics {
namespace {

Overlap overlap_of(double matches, double hypothesis, double reference) {
  Overlap result;
  result.precision = hypothesis > 0 ? matches / hypothesis : 0;
  result.recall = reference > 0 ? matches / reference : 0;
  if (result.precision + result.recall > 0)
    result.f1 = 2 * result.precision * result.recall / (result.precision + result.recall);
  return result;
}

using Tokens = std::vector<std::string>;

std::map<Tokens, std::int64_t> grams_of(const Tokens& tokens, std::size_t n) {
  std::map<Tokens, std::int64_t> grams;
  for (std::size_t i = 0; i + n <= tokens.size(); ++i)
    ++grams[Tokens(tokens.begin() + static_cast<std::ptrdiff_t>(i),
                   tokens.begin() + static_cast<std::ptrdiff_t>(i + n))];
  return grams;
}

// Lengths of longest common subsequences of all prefixes, (|a|+1) x (|b|+1).
std::vector<std::vector<std::int32_t>> lcs_table(const Tokens& a, const Tokens& b) {
  std::vector<std::vector<std::int32_t>> table(a.size() + 1, std::vector<std::int32_t>(b.size() + 1, 0));
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      table[i][j] = a[i - 1] == b[j - 1] ? table[i - 1][j - 1] + 1 : std::max(table[i - 1][j], table[i][j - 1]);
    }
  }
  return table;
}

// Indices of `reference` in one longest common subsequence, read back from the end as rouge-score does.
std::vector<std::size_t> lcs_indices(const Tokens& reference, const Tokens& hypothesis) {
  const auto table = lcs_table(reference, hypothesis);
  std::vector<std::size_t> indices;
  std::size_t i = reference.size();
  std::size_t j = hypothesis.size();
  while (i > 0 && j > 0) {
    if (reference[i - 1] == hypothesis[j - 1]) {
      indices.push_back(--i);
      --j;
    } else if (table[i][j - 1] > table[i - 1][j]) {
      --j;
    } else {
      --i;
    }
  }
  std::reverse(indices.begin(), indices.end());
  return indices;
}

bool is_cjk(char32_t c) {
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xAC00 && c <= 0xD7AF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x2FA1F);
}

bool is_word_character(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) || category == UTF8PROC_CATEGORY_ND ||
         category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC;
}

char32_t lower(char32_t c) {
  return static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c)));
}

std::vector<Tokens> lines_of(std::string_view text, const RougeOptions& options) {
  std::vector<Tokens> lines;
  for (const std::string_view line : split(text, '\n')) {
    if (!line.empty()) lines.push_back(rouge_tokens(line, options));
  }
  return lines;
}

}  // namespace

Tokens rouge_tokens(std::string_view text, const RougeOptions& options) {
  Tokens tokens;
  std::string word;
  const auto flush = [&] {
    if (word.empty()) return;
    // Only words longer than three letters are stemmed.
    tokens.push_back(options.stemmer && word.size() > 3 ? porter_stem(word) : word);
    word.clear();
  };
  for (const char32_t code : decode_utf8(text)) {
    const char32_t c = lower(code);
    if ((c >= 'a' && c <= 'z') || (c >= '0' && c <= '9')) {
      word += static_cast<char>(c);
    } else if (options.cjk && is_cjk(c)) {
      flush();
      tokens.push_back(encode_utf8(std::u32string(1, c)));
    } else if (options.cjk && is_word_character(c)) {
      append_utf8(word, c);
    } else {
      flush();
    }
  }
  flush();
  return tokens;
}

Overlap rouge_n(std::string_view hypothesis, std::string_view reference, int n, const RougeOptions& options) {
  const auto order = static_cast<std::size_t>(n);
  const auto h = grams_of(rouge_tokens(hypothesis, options), order);
  const auto r = grams_of(rouge_tokens(reference, options), order);
  double matches = 0, hypothesis_total = 0, reference_total = 0;
  for (const auto& [gram, count] : h) hypothesis_total += static_cast<double>(count);
  for (const auto& [gram, count] : r) {
    reference_total += static_cast<double>(count);
    if (const auto found = h.find(gram); found != h.end())
      matches += static_cast<double>(std::min(count, found->second));
  }
  return overlap_of(matches, std::max(hypothesis_total, 1.0), std::max(reference_total, 1.0));
}

Overlap rouge_l(std::string_view hypothesis, std::string_view reference, const RougeOptions& options) {
  const Tokens h = rouge_tokens(hypothesis, options);
  const Tokens r = rouge_tokens(reference, options);
  if (h.empty() || r.empty()) return {};
  return overlap_of(static_cast<double>(lcs_table(r, h).back().back()), static_cast<double>(h.size()),
                    static_cast<double>(r.size()));
}

Overlap rouge_l_sum(std::string_view hypothesis, std::string_view reference, const RougeOptions& options) {
  const std::vector<Tokens> h = lines_of(hypothesis, options);
  const std::vector<Tokens> r = lines_of(reference, options);
  double h_total = 0, r_total = 0;
  std::map<std::string, std::int64_t> h_left, r_left;
  for (const Tokens& line : h) {
    h_total += static_cast<double>(line.size());
    for (const std::string& token : line) ++h_left[token];
  }
  for (const Tokens& line : r) {
    r_total += static_cast<double>(line.size());
    for (const std::string& token : line) ++r_left[token];
  }
  if (h_total == 0 || r_total == 0) return {};
  double hits = 0;
  for (const Tokens& line : r) {
    std::vector<std::size_t> in_union;
    for (const Tokens& other : h) {
      for (const std::size_t index : lcs_indices(line, other)) in_union.push_back(index);
    }
    std::sort(in_union.begin(), in_union.end());
    in_union.erase(std::unique(in_union.begin(), in_union.end()), in_union.end());
    for (const std::size_t index : in_union) {
      const std::string& token = line[index];
      if (h_left[token] > 0 && r_left[token] > 0) {
        ++hits;
        --h_left[token];
        --r_left[token];
      }
    }
  }
  return overlap_of(hits, h_total, r_total);
}

std::string normalise_answer(std::string_view text) {
  static constexpr std::string_view kPunctuation = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  std::string kept;
  for (const char32_t code : decode_utf8(text)) {
    const char32_t c = lower(code);
    if (c < 0x80 && kPunctuation.find(static_cast<char>(c)) != std::string_view::npos) continue;
    append_utf8(kept, c == 0xA0 || c == 0x3000 || c == '\n' || c == '\t' || c == '\r' ? U' ' : c);
  }
  std::string result;
  for (const std::string_view word : split(kept, ' ')) {
    if (word.empty() || word == "a" || word == "an" || word == "the") continue;
    if (!result.empty()) result += ' ';
    result += word;
  }
  return result;
}

bool exact_match(std::string_view hypothesis, std::string_view reference) {
  return normalise_answer(hypothesis) == normalise_answer(reference);
}

Overlap token_f1(std::string_view hypothesis, std::string_view reference) {
  const std::string h = normalise_answer(hypothesis);
  const std::string r = normalise_answer(reference);
  if (h.empty() || r.empty()) {
    const double same = h == r ? 1 : 0;
    return {same, same, same};
  }
  std::map<std::string_view, std::int64_t> left;
  const auto h_words = split(h, ' ');
  const auto r_words = split(r, ' ');
  for (const std::string_view word : r_words) ++left[word];
  double matches = 0;
  for (const std::string_view word : h_words) {
    if (left[word] > 0) {
      --left[word];
      ++matches;
    }
  }
  return overlap_of(matches, static_cast<double>(h_words.size()), static_cast<double>(r_words.size()));
}

}  // namespace instruct::metrics
