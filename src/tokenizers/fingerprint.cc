#include "tokenizers/fingerprint.h"

#include <fmt/compile.h>

#include <iterator>

#include "base/hash.h"

namespace instruct::tokenizers {
namespace {

class Print {
 public:
  void put(std::string_view part) {
    all_ += fmt::format_int(part.size()).c_str();
    all_ += ':';
    all_ += part;
  }
  template <typename Number>
  void number(Number value) {
    fmt::format_to(std::back_inserter(all_), FMT_COMPILE("{};"), value);
  }
  void steps(const std::vector<NormaliserStep>& steps) {
    number(steps.size());
    for (const NormaliserStep& step : steps) {
      number(static_cast<int>(step.kind));
      put(step.pattern);
      put(step.text);
    }
  }
  std::string sum() const { return sha256_hex(all_); }

 private:
  std::string all_;
};

// Classes of characters once were patterns.
std::string pattern_of(const SplitStep& step) {
  switch (step.match) {
    case SplitMatch::kSpace:
      return R"(\s)";
    case SplitMatch::kPunctuation:
      return R"([\p{P}$+<=>^`|~])";
    case SplitMatch::kDigit:
      return R"(\p{N})";
    default:
      return step.pattern;
  }
}

void print_word_model(Print& print, const TokenizerSpec& spec) {
  print.number(static_cast<int>(spec.model));
  print.put(spec.continuing_prefix);
  print.number(spec.longest_word);
  print.put(spec.piece_prefix);
  print.number(spec.keeps_single);
}

}  // namespace

std::string fingerprint_of(const TokenizerSpec& spec) {
  Print print;
  for (std::size_t i = 0; i < spec.tokens.size(); ++i) {
    print.put(spec.tokens[i]);
    print.number(static_cast<int>(spec.kinds[i]));
  }
  for (const auto& [left, right] : spec.merges) {
    print.put(left);
    print.put(right);
  }
  if (spec.merges.empty()) {
    for (const double score : spec.scores) print.number(static_cast<float>(score));
    for (const auto& [text, score] : spec.foreign_pieces) {
      print.put(text);
      print.number(static_cast<float>(score));
    }
  }
  print.steps(spec.normalisers);
  print.steps(spec.preparations);
  for (const SplitStep& step : spec.splits) {
    print.put(pattern_of(step));
    print.number(static_cast<int>(step.behaviour) * 2 + static_cast<int>(step.invert));
  }
  for (const MatchRule& rule : spec.match_rules) {
    print.number(rule.id);
    for (const bool flag : {rule.strip_left, rule.strip_right, rule.single_word, rule.normalised}) print.number(flag);
  }
  print.put(spec.space_symbol);
  print.number(static_cast<int>(spec.alphabet));
  for (const bool flag : {spec.strip_leading_space, spec.ignore_merges, spec.fuse_unknown, spec.add_bos, spec.add_eos})
    print.number(flag);
  print.number(spec.unknown.value_or(-1));
  if (spec.model != ModelKind::kBytePair) print_word_model(print, spec);
  return print.sum();
}

}  // namespace instruct::tokenizers
