#include "metrics/bleu.h"

#include <utf8proc.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/error.h"
#include "base/text.h"

namespace instruct::metrics {
namespace {

constexpr int kOrder = 4;

bool is_digit(char32_t c) {
  return c >= '0' && c <= '9';
}

std::u32string replace_all(std::u32string text, std::u32string_view from, std::u32string_view to) {
  for (std::size_t at = text.find(from); at != std::u32string::npos; at = text.find(from, at + to.size()))
    text.replace(at, from.size(), to);
  return text;
}

// White space as Python's str.split() sees it.
bool is_space(char32_t c) {
  return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

std::vector<std::string> split_words(std::u32string_view text) {
  std::vector<std::string> words;
  std::u32string word;
  for (const char32_t c : text) {
    if (!is_space(c)) {
      word += c;
    } else if (!word.empty()) {
      words.push_back(encode_utf8(word));
      word.clear();
    }
  }
  if (!word.empty()) words.push_back(encode_utf8(word));
  return words;
}

// The punctuation rules of mteval-v13a, applied one after another as sacreBLEU's regular expressions are.
std::u32string separate_punctuation(const std::u32string& line) {
  std::u32string spaced;
  for (const char32_t c : line) {  // ([\{-\~\[-\` -\&\(-\+\:-\@\/])
    const bool symbol = (c >= '{' && c <= '~') || (c >= '[' && c <= '`') || (c >= ' ' && c <= '&') ||
                        (c >= '(' && c <= '+') || (c >= ':' && c <= '@') || c == '/';
    if (symbol) {
      spaced += U' ';
      spaced += c;
      spaced += U' ';
    } else {
      spaced += c;
    }
  }
  const auto pass = [](const std::u32string& in, auto matches, bool space_between) {
    // Pairs of characters, found left to right without overlap.
    std::u32string out;
    std::size_t i = 0;
    while (i < in.size()) {
      if (i + 1 < in.size() && matches(in[i], in[i + 1])) {
        if (space_between) {
          out += in[i];
          out += U' ';
          out += in[i + 1];
          out += U' ';
        } else {
          out += U' ';
          out += in[i];
          out += U' ';
          out += in[i + 1];
        }
        i += 2;
      } else {
        out += in[i++];
      }
    }
    return out;
  };
  const auto point = [](char32_t c) { return c == '.' || c == ','; };
  // ([^0-9])([\.,]) -> "\1 \2 "
  std::u32string text = pass(
      spaced, [&](char32_t a, char32_t b) { return !is_digit(a) && point(b); }, true);
  // ([\.,])([^0-9]) -> " \1 \2"
  text = pass(
      text, [&](char32_t a, char32_t b) { return point(a) && !is_digit(b); }, false);
  // ([0-9])(-) -> "\1 \2 "
  return pass(
      text, [&](char32_t a, char32_t b) { return is_digit(a) && b == '-'; }, true);
}

std::u32string tokenize_13a(std::u32string text) {
  text = replace_all(std::move(text), U"<skipped>", U"");
  text = replace_all(std::move(text), U"-\n", U"");
  text = replace_all(std::move(text), U"\n", U" ");
  if (text.find(U'&') != std::u32string::npos) {
    text = replace_all(std::move(text), U"&quot;", U"\"");
    text = replace_all(std::move(text), U"&amp;", U"&");
    text = replace_all(std::move(text), U"&lt;", U"<");
    text = replace_all(std::move(text), U"&gt;", U">");
  }
  return separate_punctuation(U" " + text + U" ");
}

bool is_number(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL || category == UTF8PROC_CATEGORY_NO;
}
bool is_punctuation(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
}
bool is_symbol(char32_t c) {
  const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(c));
  return category >= UTF8PROC_CATEGORY_SM && category <= UTF8PROC_CATEGORY_SO;
}

// mteval-v14's international rules: (\P{N})(\p{P}) -> "\1 \2 ", (\p{P})(\P{N}) -> " \1 \2", (\p{S}) -> " \1 ".
std::u32string tokenize_intl(const std::u32string& text) {
  std::u32string first;
  for (std::size_t i = 0; i < text.size();) {
    if (i + 1 < text.size() && !is_number(text[i]) && is_punctuation(text[i + 1])) {
      first += text[i];
      first += U' ';
      first += text[i + 1];
      first += U' ';
      i += 2;
    } else {
      first += text[i++];
    }
  }
  std::u32string second;
  for (std::size_t i = 0; i < first.size();) {
    if (i + 1 < first.size() && is_punctuation(first[i]) && !is_number(first[i + 1])) {
      second += U' ';
      second += first[i];
      second += U' ';
      second += first[i + 1];
      i += 2;
    } else {
      second += first[i++];
    }
  }
  std::u32string third;
  for (const char32_t c : second) {
    if (is_symbol(c)) {
      third += U' ';
      third += c;
      third += U' ';
    } else {
      third += c;
    }
  }
  return third;
}

// Ranges sacreBLEU's zh tokeniser calls Chinese. Two of them are written there with five-digit escapes, which Python
// reads as a character and a digit: U+2001 to U+2A6D and U+2F81 to U+2FA1 are what its comparison then means.
bool is_chinese(char32_t c) {
  static constexpr std::pair<char32_t, char32_t> kRanges[] = {
      {0x3400, 0x4DB5}, {0x4E00, 0x9FA5}, {0x9FA6, 0x9FBB}, {0xF900, 0xFA2D}, {0xFA30, 0xFA6A}, {0xFA70, 0xFAD9},
      {0x2001, 0x2A6D}, {0x2F81, 0x2FA1}, {0xFF00, 0xFFEF}, {0x2E80, 0x2EFF}, {0x3000, 0x303F}, {0x31C0, 0x31EF},
      {0x2F00, 0x2FDF}, {0x2FF0, 0x2FFF}, {0x3100, 0x312F}, {0x31A0, 0x31BF}, {0xFE10, 0xFE1F}, {0xFE30, 0xFE4F},
      {0x2600, 0x26FF}, {0x2700, 0x27BF}, {0x3200, 0x32FF}, {0x3300, 0x33FF}};
  return std::any_of(std::begin(kRanges), std::end(kRanges),
                     [c](const auto& range) { return c >= range.first && c <= range.second; });
}

std::u32string tokenize_zh(const std::u32string& text) {
  std::u32string spaced;
  for (const char32_t c : text) {
    if (is_chinese(c)) {
      spaced += U' ';
      spaced += c;
      spaced += U' ';
    } else {
      spaced += c;
    }
  }
  return separate_punctuation(spaced);
}

std::u32string strip(const std::u32string& text) {
  std::size_t begin = 0;
  std::size_t end = text.size();
  while (begin < end && is_space(text[begin])) ++begin;
  while (end > begin && is_space(text[end - 1])) --end;
  return text.substr(begin, end - begin);
}

std::string lower(std::string_view text) {
  std::string result;
  for (const char32_t c : decode_utf8(text))
    append_utf8(result, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
  return result;
}

template <typename T>
using Grams = std::map<std::vector<T>, std::int64_t>;

template <typename T>
Grams<T> grams_of(std::span<const T> tokens, std::size_t order) {
  Grams<T> grams;
  for (std::size_t i = 0; i + order <= tokens.size(); ++i)
    ++grams[std::vector<T>(tokens.begin() + static_cast<std::ptrdiff_t>(i),
                           tokens.begin() + static_cast<std::ptrdiff_t>(i + order))];
  return grams;
}

}  // namespace

BleuTokenizer bleu_tokenizer_from_name(std::string_view name) {
  const std::vector<std::string> known{"13a", "intl", "zh", "char", "none"};
  const auto found = std::find(known.begin(), known.end(), name);
  if (found != known.end()) return static_cast<BleuTokenizer>(found - known.begin());
  for (const char* outside : {"ja-mecab", "ko-mecab", "spm", "flores101", "flores200"}) {
    if (name == outside)
      raise(ErrorCategory::kUnsupported, "BLEU tokeniser '{}' needs a model of its own: use char, or zh", name);
  }
  raise(ErrorCategory::kInvalidArgument, "unknown BLEU tokeniser '{}'{}", name, did_you_mean(name, known));
}

std::vector<std::string> bleu_tokens(std::string_view text, BleuTokenizer tokenizer) {
  std::u32string line = decode_utf8(text);
  while (!line.empty() && is_space(line.back())) line.pop_back();
  switch (tokenizer) {
    case BleuTokenizer::k13a:
      return split_words(tokenize_13a(std::move(line)));
    case BleuTokenizer::kIntl:
      return split_words(tokenize_intl(line));
    case BleuTokenizer::kZh:
      return split_words(tokenize_zh(strip(line)));
    case BleuTokenizer::kChar: {
      std::vector<std::string> tokens;
      for (const char32_t c : line) {
        if (!is_space(c)) tokens.push_back(encode_utf8(std::u32string(1, c)));
      }
      return tokens;
    }
    case BleuTokenizer::kNone:
      return split_words(line);
  }
  raise(ErrorCategory::kInternal, "unknown BLEU tokeniser");
}

void BleuCounts::add(const BleuCounts& other) {
  for (std::size_t i = 0; i < kOrder; ++i) {
    matches[i] += other.matches[i];
    totals[i] += other.totals[i];
  }
  hypothesis_length += other.hypothesis_length;
  reference_length += other.reference_length;
}

BleuCounts bleu_counts(std::string_view hypothesis, std::span<const std::string> references, BleuTokenizer tokenizer,
                       bool lowercase) {
  INSTRUCT_CHECK(!references.empty());
  const auto tokens_of = [&](std::string_view text) {
    return bleu_tokens(lowercase ? lower(text) : std::string(text), tokenizer);
  };
  const std::vector<std::string> tokens = tokens_of(hypothesis);
  BleuCounts counts;
  counts.hypothesis_length = static_cast<std::int64_t>(tokens.size());
  std::vector<std::vector<std::string>> reference_tokens;
  std::int64_t nearest = -1;
  for (const std::string& reference : references) {
    reference_tokens.push_back(tokens_of(reference));
    const auto length = static_cast<std::int64_t>(reference_tokens.back().size());
    const std::int64_t distance = std::abs(length - counts.hypothesis_length);
    const std::int64_t best = std::abs(nearest - counts.hypothesis_length);
    if (nearest < 0 || distance < best || (distance == best && length < nearest)) nearest = length;
  }
  counts.reference_length = nearest;
  for (std::size_t order = 1; order <= kOrder; ++order) {
    std::map<std::vector<std::string>, std::int64_t> most;
    for (const auto& reference : reference_tokens) {
      for (const auto& [gram, count] : grams_of<std::string>(reference, order))
        most[gram] = std::max(most[gram], count);
    }
    for (const auto& [gram, count] : grams_of<std::string>(tokens, order)) {
      counts.totals[order - 1] += count;
      if (const auto found = most.find(gram); found != most.end())
        counts.matches[order - 1] += std::min(count, found->second);
    }
  }
  return counts;
}

double bleu_score(const BleuCounts& counts) {
  if (std::all_of(counts.matches.begin(), counts.matches.end(), [](std::int64_t n) { return n == 0; })) return 0.0;
  double log_sum = 0;
  double smoothing = 1;
  for (std::size_t i = 0; i < kOrder; ++i) {
    if (counts.totals[i] == 0) return 0.0;  // no n-gram of this order: the geometric mean is zero
    double precision = 100.0 * static_cast<double>(counts.matches[i]) / static_cast<double>(counts.totals[i]);
    if (counts.matches[i] == 0) {
      smoothing *= 2;
      precision = 100.0 / (smoothing * static_cast<double>(counts.totals[i]));
    }
    log_sum += std::log(precision);
  }
  const auto hypothesis = static_cast<double>(counts.hypothesis_length);
  const auto reference = static_cast<double>(counts.reference_length);
  const double brevity = hypothesis >= reference ? 1.0 : hypothesis > 0 ? std::exp(1.0 - reference / hypothesis) : 0.0;
  return brevity * std::exp(log_sum / kOrder);
}

namespace {

// chrF splits one punctuation mark off either end of a word.
std::vector<std::string> chrf_words(std::string_view text) {
  static constexpr std::string_view kMarks = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~";
  std::vector<std::string> words;
  for (const std::string& word : split_words(decode_utf8(text))) {
    if (decode_utf8(word).size() == 1) {
      words.push_back(word);
    } else if (kMarks.find(word.back()) != std::string_view::npos) {
      words.push_back(word.substr(0, word.size() - 1));
      words.push_back(word.substr(word.size() - 1));
    } else if (kMarks.find(word.front()) != std::string_view::npos) {
      words.push_back(word.substr(0, 1));
      words.push_back(word.substr(1));
    } else {
      words.push_back(word);
    }
  }
  return words;
}

template <typename T>
void count_order(std::span<const T> hypothesis, std::span<const T> reference, std::size_t order, ChrfCounts& counts) {
  double h = 0, r = 0, m = 0;
  const Grams<T> in_reference = grams_of<T>(reference, order);
  for (const auto& [gram, count] : in_reference) r += static_cast<double>(count);
  for (const auto& [gram, count] : grams_of<T>(hypothesis, order)) {
    h += static_cast<double>(count);
    if (const auto found = in_reference.find(gram); found != in_reference.end())
      m += static_cast<double>(std::min(count, found->second));
  }
  // sacreBLEU leaves an order out of a row whose reference has none of it.
  counts.hypothesis.push_back(r > 0 ? h : 0);
  counts.reference.push_back(r);
  counts.matches.push_back(m);
}

}  // namespace

void ChrfCounts::add(const ChrfCounts& other) {
  for (auto [mine, theirs] :
       {std::pair{&hypothesis, &other.hypothesis}, {&reference, &other.reference}, {&matches, &other.matches}}) {
    mine->resize(std::max(mine->size(), theirs->size()));
    for (std::size_t i = 0; i < theirs->size(); ++i) (*mine)[i] += (*theirs)[i];
  }
}

ChrfCounts chrf_counts(std::string_view hypothesis, std::string_view reference, int word_order) {
  ChrfCounts counts;
  const auto characters = [](std::string_view text) {
    std::u32string kept;
    for (const char32_t c : decode_utf8(text)) {
      if (!is_space(c)) kept += c;
    }
    return kept;
  };
  const std::u32string h = characters(hypothesis);
  const std::u32string r = characters(reference);
  for (std::size_t order = 1; order <= 6; ++order)
    count_order<char32_t>(std::span(h.data(), h.size()), std::span(r.data(), r.size()), order, counts);
  const std::vector<std::string> hw = chrf_words(hypothesis);
  const std::vector<std::string> rw = chrf_words(reference);
  for (int order = 1; order <= word_order; ++order)
    count_order<std::string>(hw, rw, static_cast<std::size_t>(order), counts);
  return counts;
}

double chrf_score(const ChrfCounts& counts, double beta) {
  double precision = 0, recall = 0;
  int effective = 0;
  for (std::size_t i = 0; i < counts.matches.size(); ++i) {
    if (counts.hypothesis[i] <= 0 || counts.reference[i] <= 0) continue;
    precision += counts.matches[i] / counts.hypothesis[i];
    recall += counts.matches[i] / counts.reference[i];
    ++effective;
  }
  if (effective == 0) return 0;
  precision /= effective;
  recall /= effective;
  const double factor = beta * beta;
  return precision + recall > 0 ? 100.0 * (1 + factor) * precision * recall / (factor * precision + recall) : 0.0;
}

}  // namespace instruct::metrics
