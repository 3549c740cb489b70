#include "instructions/segmentation.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>

#include "base/text.h"

namespace instruct::instructions {
namespace {

constexpr char32_t kIdeographicSpace = 0x3000;

struct Character {
  char32_t code = 0;
  std::size_t size = 1;
};

// The character at `offset`; a byte that starts none counts as one unknown character.
Character character_at(std::string_view text, std::size_t offset) {
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(text[offset + i]); };
  const unsigned char first = byte(0);
  std::size_t size = 1;
  char32_t code = first;
  if (first >= 0xF0) {
    size = 4;
    code = first & 0x07U;
  } else if (first >= 0xE0) {
    size = 3;
    code = first & 0x0FU;
  } else if (first >= 0xC0) {
    size = 2;
    code = first & 0x1FU;
  } else {
    return {first < 0x80 ? code : 0xFFFD, 1};
  }
  if (offset + size > text.size()) return {0xFFFD, 1};
  for (std::size_t i = 1; i < size; ++i) {
    if ((byte(i) & 0xC0U) != 0x80U) return {0xFFFD, 1};
    code = code << 6 | (byte(i) & 0x3FU);
  }
  return {code, size};
}

bool is_space(char32_t c) {
  return c == ' ' || (c >= '\t' && c <= '\r') || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == kIdeographicSpace;
}

// Chinese characters and Japanese kana, which are written without spaces between words.
bool is_ideograph(char32_t c) {
  return (c >= 0x3040 && c <= 0x30FF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x4E00 && c <= 0x9FFF) ||
         (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x20000 && c <= 0x3FFFF);
}

bool is_closer(char32_t c) {
  constexpr std::u32string_view kClosers = U"\"')]}”’»」』）】》〉";
  return kClosers.find(c) != std::u32string_view::npos;
}

bool is_lower(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 0xDF && c <= 0xFF && c != 0xF7);
}
bool is_letter(char32_t c) {
  return is_lower(c) || (c >= 'A' && c <= 'Z') || (c >= 0xC0 && c <= 0xDE) || (c >= 0x100 && c < 0x2000);
}

ByteRange trimmed(std::string_view text, ByteRange range) {
  while (range.begin < range.end) {
    const Character c = character_at(text, range.begin);
    if (!is_space(c.code)) break;
    range.begin += c.size;
  }
  while (range.begin < range.end) {
    std::size_t start = range.end - 1;
    while (start > range.begin && range.end - start < 4 && (static_cast<unsigned char>(text[start]) & 0xC0U) == 0x80U)
      --start;
    if (start + character_at(text, start).size != range.end || !is_space(character_at(text, start).code)) break;
    range.end = start;
  }
  return range;
}

// Physical lines without their line ends ("\n", "\r\n").
std::vector<ByteRange> physical_lines(std::string_view text) {
  std::vector<ByteRange> lines;
  std::size_t begin = 0;
  while (begin < text.size()) {
    const std::size_t end = std::min(text.find('\n', begin), text.size());
    lines.push_back({begin, end});
    begin = end + 1;
  }
  return lines;
}

void push_trimmed(std::string_view text, ByteRange range, std::vector<ByteRange>& out) {
  range = trimmed(text, range);
  if (range.begin < range.end) out.push_back(range);
}

std::vector<ByteRange> paragraphs(std::string_view text) {
  std::vector<ByteRange> result;
  ByteRange current{0, 0};
  for (const ByteRange& line : physical_lines(text)) {
    const ByteRange content = trimmed(text, line);
    const bool blank = content.begin == content.end;
    const bool indented = !blank && character_at(text, line.begin).code == kIdeographicSpace;
    if (blank || indented) {
      push_trimmed(text, current, result);
      current.begin = line.begin;
    }
    current.end = line.end;
  }
  push_trimmed(text, current, result);
  return result;
}

// Words that a full stop follows without ending a sentence, in lower case, without that stop.
constexpr auto kAbbreviations = std::to_array<std::string_view>(
    {"abbr", "al",   "approx", "apr", "aug",  "bzw", "ca",   "cf",  "chap", "co",   "corp", "dec",
     "dept", "dr",   "e.g",    "ed",  "eds",  "eg",  "eq",   "esp", "est",  "evtl", "excl", "feb",
     "fig",  "figs", "gen",    "ggf", "i.e",  "ie",  "incl", "jan", "jr",   "jul",  "jun",  "max",
     "min",  "mr",   "mrs",    "ms",  "mt",   "nov", "oct",  "op",  "p",    "pp",   "prof", "ref",
     "rev",  "sec",  "sect",   "sep", "sept", "sr",  "st",   "u.a", "usw",  "viz",  "vol",  "vs"});
// These also end sentences; the next word decides.
constexpr auto kOftenLast = std::to_array<std::string_view>({"etc", "inc", "ltd", "no", "a.m", "p.m"});

template <std::size_t N>
bool contains(const std::array<std::string_view, N>& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

class SentenceCutter {
 public:
  SentenceCutter(std::string_view text, ByteRange paragraph, std::vector<ByteRange>& out)
      : text_(text), paragraph_(paragraph), out_(out) {}

  void cut() {
    std::size_t start = paragraph_.begin;
    std::size_t at = paragraph_.begin;
    while (at < paragraph_.end) {
      const Character c = character_at(text_, at);
      if (c.code == '\n' && starts_with_bullet(at + 1)) {
        push_trimmed(text_, {start, at}, out_);
        start = at + 1;
      }
      if (!is_terminator(c.code)) {
        at += c.size;
        continue;
      }
      const std::size_t stop = at;
      const std::size_t after = behind_terminators(at);
      if (ends_sentence(c.code, stop, after)) {
        push_trimmed(text_, {start, after}, out_);
        start = after;
      }
      at = after;
    }
    push_trimmed(text_, {start, paragraph_.end}, out_);
  }

 private:
  static bool is_wide_terminator(char32_t c) { return c == U'。' || c == U'！' || c == U'？' || c == U'｡'; }
  static bool is_terminator(char32_t c) { return c == '.' || c == '!' || c == '?' || is_wide_terminator(c); }

  // Past a run of terminators and the quotes and brackets that close behind it.
  std::size_t behind_terminators(std::size_t at) {
    wide_ = false;
    while (at < paragraph_.end && is_terminator(character_at(text_, at).code)) {
      wide_ = wide_ || is_wide_terminator(character_at(text_, at).code);
      at += character_at(text_, at).size;
    }
    while (at < paragraph_.end && is_closer(character_at(text_, at).code)) at += character_at(text_, at).size;
    return at;
  }

  bool starts_with_bullet(std::size_t at) const {
    while (at < paragraph_.end && (text_[at] == ' ' || text_[at] == '\t')) ++at;
    if (at >= paragraph_.end) return false;
    const Character c = character_at(text_, at);
    constexpr std::u32string_view kBullets = U"*-+•‣–·";
    if (kBullets.find(c.code) == std::u32string_view::npos) return false;
    return at + c.size < paragraph_.end && is_space(character_at(text_, at + c.size).code);
  }

  bool ends_sentence(char32_t terminator, std::size_t stop, std::size_t after) const {
    if (wide_ || after >= paragraph_.end) return true;
    const Character next = character_at(text_, after);
    if (is_ideograph(next.code)) return true;
    if (!is_space(next.code)) return false;  // 3.14, example.org
    if (terminator != '.') return true;
    return !is_abbreviation(stop, after);
  }

  // Whether the full stop at `stop` only shortens the word before it.
  bool is_abbreviation(std::size_t stop, std::size_t after) const {
    std::size_t begin = stop;
    while (begin > paragraph_.begin && static_cast<unsigned char>(text_[begin - 1]) > ' ' && text_[begin - 1] != '(' &&
           text_[begin - 1] != '"') {
      --begin;
    }
    const std::string_view word = text_.substr(begin, stop - begin);
    const std::string lower = to_lower_ascii(word);
    if (contains(kAbbreviations, lower)) return true;
    const bool next_is_lower = is_lower(next_character(after));
    if (contains(kOftenLast, lower)) return next_is_lower || (lower == "no" && is_digit(next_character(after)));
    const bool dots = stop + 1 < after && text_[stop + 1] == '.';
    if (word.empty() || dots) return next_is_lower;  // "... and so on"
    // Initials: "J. Smith", "U.S. law". A lone "I" ends sentences too, yet rarely.
    const bool single = word.size() == 1 || word[word.size() - 2] == '.';
    if (single && is_letter(static_cast<unsigned char>(word.back()))) return true;
    constexpr std::size_t kShortWord = 4;
    const bool letters = std::all_of(word.begin(), word.end(),
                                     [](char c) { return is_letter(static_cast<unsigned char>(c)) || c == '.'; });
    return next_is_lower && letters && word.size() <= kShortWord;
  }

  static bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }

  // The first character behind white space and opening quotes.
  char32_t next_character(std::size_t at) const {
    constexpr std::u32string_view kOpeners = U"\"'([{“‘«";
    while (at < paragraph_.end) {
      const Character c = character_at(text_, at);
      if (!is_space(c.code) && kOpeners.find(c.code) == std::u32string_view::npos) return c.code;
      at += c.size;
    }
    return 0;
  }

  std::string_view text_;
  ByteRange paragraph_;
  std::vector<ByteRange>& out_;
  bool wide_ = false;
};

std::vector<ByteRange> words(std::string_view text) {
  std::vector<ByteRange> result;
  std::size_t begin = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    if (is_space(c.code) || is_ideograph(c.code)) {
      if (begin < at) result.push_back({begin, at});
      if (is_ideograph(c.code)) result.push_back({at, at + c.size});
      begin = at + c.size;
    }
    at += c.size;
  }
  if (begin < text.size()) result.push_back({begin, text.size()});
  return result;
}

}  // namespace

std::string_view unit_name(TextUnit unit) {
  constexpr std::array<std::string_view, 5> kNames{"document", "paragraph", "sentence", "line", "word"};
  return kNames[static_cast<std::size_t>(unit)];
}

std::vector<ByteRange> segment(std::string_view text, TextUnit unit) {
  std::vector<ByteRange> result;
  switch (unit) {
    case TextUnit::kDocument:
      push_trimmed(text, {0, text.size()}, result);
      break;
    case TextUnit::kParagraph:
      return paragraphs(text);
    case TextUnit::kSentence:
      for (const ByteRange& paragraph : paragraphs(text)) SentenceCutter(text, paragraph, result).cut();
      break;
    case TextUnit::kLine:
      for (const ByteRange& line : physical_lines(text)) push_trimmed(text, line, result);
      break;
    case TextUnit::kWord:
      return words(text);
  }
  return result;
}

}  // namespace instruct::instructions
