#include "metrics/stemmer.h"

#include <array>
#include <map>

namespace instruct::metrics {
namespace {

class Stem {
 public:
  explicit Stem(std::string_view word) : word_(word) {}

  std::string run() {
    if (const auto special = irregular(); !special.empty()) return special;
    if (word_.size() <= 2) return word_;
    step_1a();
    step_1b();
    step_1c();
    step_2();
    step_3();
    step_4();
    step_5a();
    step_5b();
    return word_;
  }

 private:
  // nltk's list of words the rules get wrong.
  std::string irregular() const {
    static const std::map<std::string, std::string> table{
        {"sky", "sky"},        {"skies", "sky"},       {"dying", "die"},        {"lying", "lie"},
        {"tying", "tie"},      {"news", "news"},       {"innings", "inning"},   {"inning", "inning"},
        {"outings", "outing"}, {"outing", "outing"},   {"cannings", "canning"}, {"canning", "canning"},
        {"howe", "howe"},      {"proceed", "proceed"}, {"exceed", "exceed"},    {"succeed", "succeed"}};
    const auto found = table.find(word_);
    return found == table.end() ? std::string() : found->second;
  }

  static bool is_consonant(std::string_view word, std::size_t i) {
    switch (word[i]) {
      case 'a':
      case 'e':
      case 'i':
      case 'o':
      case 'u':
        return false;
      case 'y':
        return i == 0 || !is_consonant(word, i - 1);
      default:
        return true;
    }
  }
  // Number of vowel-consonant sequences.
  static int measure(std::string_view stem) {
    int count = 0;
    bool before_vowel = false;
    for (std::size_t i = 0; i < stem.size(); ++i) {
      const bool consonant = is_consonant(stem, i);
      if (consonant && before_vowel) ++count;
      before_vowel = !consonant;
    }
    return count;
  }
  static bool has_vowel(std::string_view stem) {
    for (std::size_t i = 0; i < stem.size(); ++i) {
      if (!is_consonant(stem, i)) return true;
    }
    return false;
  }
  static bool ends_double_consonant(std::string_view word) {
    return word.size() >= 2 && word[word.size() - 1] == word[word.size() - 2] && is_consonant(word, word.size() - 1);
  }
  static bool ends_cvc(std::string_view word) {
    const std::size_t n = word.size();
    if (n >= 3) {
      return is_consonant(word, n - 3) && !is_consonant(word, n - 2) && is_consonant(word, n - 1) &&
             word[n - 1] != 'w' && word[n - 1] != 'x' && word[n - 1] != 'y';
    }
    return n == 2 && !is_consonant(word, 0) && is_consonant(word, 1);
  }
  bool ends(std::string_view suffix) const { return std::string_view(word_).ends_with(suffix); }
  std::string_view without(std::string_view suffix) const {
    return std::string_view(word_).substr(0, word_.size() - suffix.size());
  }
  void set(std::string_view stem, std::string_view suffix) { word_ = std::string(stem) + std::string(suffix); }

  void step_1a() {
    if (ends("ies") && word_.size() == 4)
      set(without("ies"), "ie");
    else if (ends("sses"))
      set(without("sses"), "ss");
    else if (ends("ies"))
      set(without("ies"), "i");
    else if (ends("ss"))
      return;
    else if (ends("s"))
      set(without("s"), "");
  }

  void step_1b() {
    if (ends("ied")) {
      set(without("ied"), word_.size() == 4 ? "ie" : "i");
      return;
    }
    if (ends("eed")) {
      if (measure(without("eed")) > 0) set(without("eed"), "ee");
      return;
    }
    bool cut = false;
    for (const char* suffix : {"ed", "ing"}) {
      if (ends(suffix) && has_vowel(without(suffix))) {
        set(without(suffix), "");
        cut = true;
        break;
      }
    }
    if (!cut) return;
    if (ends("at") || ends("bl") || ends("iz")) {
      word_ += 'e';
    } else if (ends_double_consonant(word_) && word_.back() != 'l' && word_.back() != 's' && word_.back() != 'z') {
      word_.pop_back();
    } else if (measure(word_) == 1 && ends_cvc(word_)) {
      word_ += 'e';
    }
  }

  void step_1c() {
    if (!ends("y")) return;
    const std::string_view stem = without("y");
    if (stem.size() > 1 && is_consonant(stem, stem.size() - 1)) set(stem, "i");
  }

  struct Rule {
    std::string_view suffix;
    std::string_view replacement;
  };
  // The first rule whose suffix fits decides, whether or not its condition holds.
  template <std::size_t N>
  void apply(const std::array<Rule, N>& rules, int least_measure) {
    for (const Rule& rule : rules) {
      if (!ends(rule.suffix)) continue;
      if (measure(without(rule.suffix)) > least_measure) set(without(rule.suffix), rule.replacement);
      return;
    }
  }

  void step_2() {
    if (ends("alli")) {
      if (measure(without("alli")) > 0) {
        set(without("alli"), "al");
        step_2();
      }
      return;
    }
    if (ends("fulli")) {
      if (measure(without("fulli")) > 0) set(without("fulli"), "ful");
      return;
    }
    static constexpr std::array<Rule, 19> kRules{{{"ational", "ate"},
                                                  {"tional", "tion"},
                                                  {"enci", "ence"},
                                                  {"anci", "ance"},
                                                  {"izer", "ize"},
                                                  {"bli", "ble"},
                                                  {"entli", "ent"},
                                                  {"eli", "e"},
                                                  {"ousli", "ous"},
                                                  {"ization", "ize"},
                                                  {"ation", "ate"},
                                                  {"ator", "ate"},
                                                  {"alism", "al"},
                                                  {"iveness", "ive"},
                                                  {"fulness", "ful"},
                                                  {"ousness", "ous"},
                                                  {"aliti", "al"},
                                                  {"iviti", "ive"},
                                                  {"biliti", "ble"}}};
    for (const Rule& rule : kRules) {
      if (!ends(rule.suffix)) continue;
      if (measure(without(rule.suffix)) > 0) set(without(rule.suffix), rule.replacement);
      return;
    }
    if (ends("logi") && measure(word_.substr(0, word_.size() - 3)) > 0) set(without("logi"), "log");
  }

  void step_3() {
    static constexpr std::array<Rule, 7> kRules{
        {{"icate", "ic"}, {"ative", ""}, {"alize", "al"}, {"iciti", "ic"}, {"ical", "ic"}, {"ful", ""}, {"ness", ""}}};
    apply(kRules, 0);
  }

  void step_4() {
    static constexpr std::array<Rule, 19> kRules{{{"al", ""},
                                                  {"ance", ""},
                                                  {"ence", ""},
                                                  {"er", ""},
                                                  {"ic", ""},
                                                  {"able", ""},
                                                  {"ible", ""},
                                                  {"ant", ""},
                                                  {"ement", ""},
                                                  {"ment", ""},
                                                  {"ent", ""},
                                                  {"ion", ""},
                                                  {"ou", ""},
                                                  {"ism", ""},
                                                  {"ate", ""},
                                                  {"iti", ""},
                                                  {"ous", ""},
                                                  {"ive", ""},
                                                  {"ize", ""}}};
    for (const Rule& rule : kRules) {
      if (!ends(rule.suffix)) continue;
      const std::string_view stem = without(rule.suffix);
      const bool fits = rule.suffix != "ion" || (!stem.empty() && (stem.back() == 's' || stem.back() == 't'));
      if (measure(stem) > 1 && fits) set(stem, "");
      return;
    }
  }

  void step_5a() {
    if (!ends("e")) return;
    const std::string_view stem = without("e");
    if (measure(stem) > 1 || (measure(stem) == 1 && !ends_cvc(stem))) set(stem, "");
  }
  void step_5b() {
    if (ends("ll") && measure(std::string_view(word_).substr(0, word_.size() - 1)) > 1) word_.pop_back();
  }

  std::string word_;
};

}  // namespace

std::string porter_stem(std::string_view word) {
  return Stem(word).run();
}

}  // namespace instruct::metrics
