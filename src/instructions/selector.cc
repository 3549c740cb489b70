#include "instructions/selector.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

constexpr std::int64_t kMaxNumber = 1'000'000'000;
constexpr std::array<TextUnit, 4> kCountedUnits{TextUnit::kParagraph, TextUnit::kSentence, TextUnit::kLine,
                                                TextUnit::kWord};

constexpr auto kOrdinalWords =
    std::to_array<std::string_view>({"first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth",
                                     "ninth", "tenth", "eleventh", "twelfth"});
constexpr auto kCountWords = std::to_array<std::string_view>(
    {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"});

// Any of these means the whole document.
constexpr auto kWholes = std::to_array<std::string_view>({"document", "all", "text", "everything", "whole document",
                                                          "whole text", "entire document", "entire text", "全文",
                                                          "整篇", "全部", "文档", "整个文档", "整篇文档", "整篇文章"});

template <std::size_t N>
std::optional<std::int64_t> place_in(const std::array<std::string_view, N>& words, std::string_view word) {
  const auto found = std::find(words.begin(), words.end(), word);
  if (found == words.end()) return std::nullopt;
  return found - words.begin() + 1;
}

std::optional<std::int64_t> digits_of(std::string_view text) {
  std::int64_t number = 0;
  const auto [stop, status] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (text.empty() || text.front() == '-' || stop != text.data() + text.size()) return std::nullopt;
  if (status != std::errc() || number > kMaxNumber) return kMaxNumber;
  return number;
}

// "3rd", "third", "3" -> 3.
std::optional<std::int64_t> ordinal_of(std::string_view word) {
  if (const auto place = place_in(kOrdinalWords, word)) return place;
  for (const std::string_view ending : {"st", "nd", "rd", "th"}) {
    if (word.size() > 2 && word.ends_with(ending)) return digits_of(word.substr(0, word.size() - 2));
  }
  return std::nullopt;
}

std::optional<std::int64_t> count_of(std::string_view word) {
  if (const auto place = place_in(kCountWords, word)) return place;
  return digits_of(word);
}

bool take_prefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

bool take_suffix(std::string_view& text, std::string_view suffix) {
  if (!text.ends_with(suffix)) return false;
  text.remove_suffix(suffix.size());
  return true;
}

void replace_all(std::string& text, std::string_view what, std::string_view by) {
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + by.size())) {
    text.replace(at, what.size(), by);
  }
}

// Arabic digits, or Chinese numerals below 10,000 (二十三, 一百零五, 两).
std::optional<std::int64_t> chinese_number(std::string_view text) {
  if (const auto digits = digits_of(text)) return digits;
  if (text.empty()) return std::nullopt;
  std::int64_t total = 0;
  std::int64_t digit = 0;
  for (const char32_t c : decode_utf8(text)) {
    constexpr std::u32string_view kDigits = U"零一二三四五六七八九";
    if (const std::size_t place = kDigits.find(c); place != std::u32string_view::npos) {
      digit = static_cast<std::int64_t>(place);
    } else if (c == U'两') {
      digit = 2;
    } else if (c == U'十' || c == U'百' || c == U'千') {
      total += std::max<std::int64_t>(digit, 1) * (c == U'十' ? 10 : c == U'百' ? 100 : 1000);
      digit = 0;
    } else {
      return std::nullopt;
    }
  }
  return total + digit;
}

class SelectorParser {
 public:
  explicit SelectorParser(std::string_view original) : original_(original) {}

  Selector parse() {
    std::string text = to_lower_ascii(trim(original_));
    for (const std::string_view dash : {"–", "—", "−", "～", "~"}) replace_all(text, dash, "-");
    if (text.empty()) fail("it is empty");
    if (text.starts_with("the ")) text.erase(0, 4);
    if (std::find(kWholes.begin(), kWholes.end(), text) != kWholes.end()) return {};
    const bool ascii =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    return checked(ascii ? english(text) : chinese(text));
  }

 private:
  Selector english(const std::string& text) {
    std::vector<std::string_view> words;
    for (const std::string_view word : instruct::split(text, ' ')) {
      if (!word.empty()) words.push_back(word);
    }
    const std::string_view head = words.front();
    if (words.size() == 2 && (head == "every" || head == "each")) return {.unit = unit(words[1]), .every = true};
    if (words.size() == 2 && head == "all") {
      fail(
          fmt::format("say 'every {}' for one call each, or 'document' for the whole text", unit_name(unit(words[1]))));
    }
    if (words.size() == 3 && (head == "first" || head == "last")) {
      if (const auto count = count_of(words[1])) return edge(unit(words[2]), *count, head == "last");
    }
    if (head == "last" && words.size() == 2) return nth(unit(words[1]), 1, true);
    if (const auto number = ordinal_of(head)) {
      if (words.size() == 2) return nth(unit(words[1]), *number, false);
      if (words.size() == 3 && words[1] == "last") return nth(unit(words[2]), *number, true);
      if (words.size() == 4 && words[1] == "to" && words[2] == "last") return nth(unit(words[3]), *number, true);
    }
    if (words.size() >= 2 && find_unit(head)) return span_of(*find_unit(head), {words.begin() + 1, words.end()});
    if (words.size() >= 2 && !ordinal_of(head)) unit(words.back());  // a misspelt unit is the likelier slip
    fail(kForms);
  }

  // What stands behind "paragraphs": "2-4", "2 to 4", "3-last" or one number.
  Selector span_of(TextUnit unit, const std::vector<std::string_view>& words) {
    std::string text;
    for (const std::string_view word : words) text += word == "to" ? "-" : std::string(word);
    const std::vector<std::string_view> ends = instruct::split(text, '-');
    const auto first = digits_of(ends.front());
    if (!first || ends.size() > 2) fail(kForms);
    if (ends.size() == 1) return nth(unit, *first, false);
    if (ends[1] == "last" || ends[1] == "end") return {.unit = unit, .first = {*first, false}, .last = {1, true}};
    const auto last = digits_of(ends[1]);
    if (!last) fail(kForms);
    return {.unit = unit, .first = {*first, false}, .last = {*last, false}};
  }

  Selector chinese(const std::string& original) {
    std::string text = original;
    for (const std::string_view word : {" ", "\u3000"}) replace_all(text, word, "");
    for (const std::string_view word : {"到第", "至第", "到", "至", "-第"}) replace_all(text, word, "-");
    std::string_view rest = text;
    const TextUnit unit = chinese_unit(rest);
    take_suffix(rest, "个");
    if (rest == "每" || rest == "每一" || rest == "各") return {.unit = unit, .every = true};
    if (rest == "末" || rest == "最后" || rest == "最后一") return nth(unit, 1, true);
    if (rest == "首") return nth(unit, 1, false);
    if (take_prefix(rest, "倒数第")) return nth(unit, number(rest), true);
    if (take_prefix(rest, "最后") || take_prefix(rest, "后")) return edge(unit, number(rest), true);
    if (take_prefix(rest, "前")) return edge(unit, number(rest), false);
    if (!take_prefix(rest, "第")) fail(kForms);
    const std::vector<std::string_view> ends = instruct::split(rest, '-');
    if (ends.size() == 1) return nth(unit, number(rest), false);
    if (ends.size() != 2) fail(kForms);
    std::string_view first = ends[0];
    if (find_chinese_unit(first) == unit) chinese_unit(first);  // 第2段到第4段
    take_suffix(first, "个");
    return {.unit = unit,
            .first = {number(first), false},
            .last = ends[1] == "最后" || ends[1] == "最后一" ? Ordinal{1, true} : Ordinal{number(ends[1]), false}};
  }

  std::int64_t number(std::string_view text) {
    const auto number = chinese_number(text);
    if (!number) fail(text.empty() ? std::string("a number is missing") : fmt::format("'{}' is not a number", text));
    return *number;
  }

  struct ChineseUnit {
    std::string_view word;
    TextUnit unit;
  };
  static constexpr auto kChineseUnits = std::to_array<ChineseUnit>({{"自然段", TextUnit::kParagraph},
                                                                    {"段落", TextUnit::kParagraph},
                                                                    {"段", TextUnit::kParagraph},
                                                                    {"句子", TextUnit::kSentence},
                                                                    {"句话", TextUnit::kSentence},
                                                                    {"句", TextUnit::kSentence},
                                                                    {"行", TextUnit::kLine},
                                                                    {"单词", TextUnit::kWord},
                                                                    {"词", TextUnit::kWord},
                                                                    {"字", TextUnit::kWord}});

  static std::optional<TextUnit> find_chinese_unit(std::string_view text) {
    for (const ChineseUnit& entry : kChineseUnits) {
      if (text.ends_with(entry.word)) return entry.unit;
    }
    return std::nullopt;
  }
  // Takes the unit off the end.
  TextUnit chinese_unit(std::string_view& text) {
    for (const ChineseUnit& entry : kChineseUnits) {
      if (take_suffix(text, entry.word)) return entry.unit;
    }
    fail("it names no unit: 段 (paragraph), 句 (sentence), 行 (line) or 词 (word)");
  }

  static std::optional<TextUnit> find_unit(std::string_view word) {
    for (const TextUnit unit : kCountedUnits) {
      std::string_view rest = word;
      if (take_prefix(rest, unit_name(unit)) && (rest.empty() || rest == "s")) return unit;
    }
    return std::nullopt;
  }
  TextUnit unit(std::string_view word) {
    if (const auto unit = find_unit(word)) return *unit;
    std::vector<std::string> names;
    for (const TextUnit unit : kCountedUnits) names.emplace_back(unit_name(unit));
    fail(fmt::format("unknown unit '{}'{}", word, did_you_mean(word, names)));
  }

  static Selector nth(TextUnit unit, std::int64_t number, bool from_end) {
    return {.unit = unit, .first = {number, from_end}, .last = {number, from_end}};
  }
  static Selector edge(TextUnit unit, std::int64_t count, bool from_end) {
    if (from_end) return {.unit = unit, .first = {count, true}, .last = {1, true}};
    return {.unit = unit, .first = {1, false}, .last = {count, false}};
  }

  Selector checked(const Selector& selector) {
    const Ordinal& first = selector.first;
    const Ordinal& last = selector.last;
    if (first.number < 1 || last.number < 1) fail("units are counted from 1");
    if (first.number >= kMaxNumber || last.number >= kMaxNumber) fail("the number is too large");
    if (first.from_end == last.from_end && (first.from_end ? last.number > first.number : last.number < first.number)) {
      fail("it ends before it starts");
    }
    return selector;
  }

  static constexpr std::string_view kForms =
      "expected a form such as '1st paragraph', 'last sentence', 'paragraphs 2-4', 'first 3 lines', 'every sentence' "
      "or "
      "'document'";
  [[noreturn]] void fail(std::string_view why) const {
    raise(ErrorCategory::kBadData, "selector '{}': {}", original_, why);
  }

  std::string_view original_;
};

std::string nth_name(std::int64_t number) {
  const std::int64_t tens = number % 100;
  const bool teen = tens >= 11 && tens <= 13;
  const char* ending = teen ? "th" : number % 10 == 1 ? "st" : number % 10 == 2 ? "nd" : number % 10 == 3 ? "rd" : "th";
  return fmt::format("{}{}", number, ending);
}

// Index of a place among `count` units; -1 or less when it lies before the start, `count` or more when past the end.
std::int64_t index_of(const Ordinal& place, std::int64_t count) {
  return place.from_end ? count - place.number : place.number - 1;
}

}  // namespace

Selector parse_selector(std::string_view text) {
  if (const auto bad = find_invalid_utf8(text))
    raise(ErrorCategory::kBadData, "selector: invalid UTF-8 at byte {}", *bad);
  return SelectorParser(text).parse();
}

std::string print_selector(const Selector& selector) {
  const std::string_view unit = unit_name(selector.unit);
  if (selector.unit == TextUnit::kDocument) return std::string(unit);
  if (selector.every) return fmt::format("every {}", unit);
  const Ordinal& first = selector.first;
  const Ordinal& last = selector.last;
  if (first == last) {
    if (!first.from_end) return fmt::format("{} {}", nth_name(first.number), unit);
    return first.number == 1 ? fmt::format("last {}", unit) : fmt::format("{} last {}", nth_name(first.number), unit);
  }
  if (first.from_end) return fmt::format("last {} {}s", first.number, unit);
  if (last.from_end) return fmt::format("{}s {}-last", unit, first.number);
  return fmt::format("{}s {}-{}", unit, first.number, last.number);
}

SegmentedText::SegmentedText(std::string text) : text_(std::move(text)), units_(5), known_(5, false) {}

const std::vector<ByteRange>& SegmentedText::units(TextUnit unit) {
  const auto place = static_cast<std::size_t>(unit);
  if (!known_[place]) {
    units_[place] = segment(text_, unit);
    known_[place] = true;
  }
  return units_[place];
}

std::vector<ByteRange> SegmentedText::select(const Selector& selector) {
  const std::vector<ByteRange>& all = units(selector.unit);
  const auto count = static_cast<std::int64_t>(all.size());
  if (count == 0) {
    raise(ErrorCategory::kNotFound, "selector '{}': the document has no text", print_selector(selector));
  }
  if (selector.unit == TextUnit::kDocument || selector.every) return all;
  const std::int64_t first = index_of(selector.first, count);
  const std::int64_t last = index_of(selector.last, count);
  if (first < 0 || last < 0 || first >= count || last >= count || last < first) {
    raise(ErrorCategory::kNotFound, "selector '{}': the document has {} {}{}", print_selector(selector), count,
          unit_name(selector.unit), count == 1 ? "" : "s");
  }
  return {{all[static_cast<std::size_t>(first)].begin, all[static_cast<std::size_t>(last)].end}};
}

std::optional<ByteRange> SegmentedText::select_within(const Selector& selector) {
  const std::vector<ByteRange>& all = units(selector.unit);
  const auto count = static_cast<std::int64_t>(all.size());
  if (selector.unit == TextUnit::kDocument && count > 0) return all.front();
  const std::int64_t first = index_of(selector.first, count);
  const std::int64_t last = std::min(index_of(selector.last, count), count - 1);
  if (first < 0 || first > last) return std::nullopt;
  return ByteRange{all[static_cast<std::size_t>(first)].begin, all[static_cast<std::size_t>(last)].end};
}

}  // namespace instruct::instructions
