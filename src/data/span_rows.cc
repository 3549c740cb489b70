#include "data/span_rows.h"

#include <algorithm>
#include <optional>

#include "base/error.h"
#include "tokenizers/characters.h"

namespace instruct::data {
namespace {

using instructions::Mention;
using tokenizers::first_character;
using tokenizers::last_character;

bool continues_character(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0U) == 0x80U;
}

// Grown to whole characters, then without white space at its ends.
ByteRange content(std::string_view text, std::size_t begin, std::size_t end) {
  while (begin > 0 && begin < text.size() && continues_character(text[begin])) --begin;
  while (end < text.size() && continues_character(text[end])) ++end;
  std::size_t length = 0;
  while (begin < end && tokenizers::is_space(first_character(text.substr(begin, end - begin), length))) begin += length;
  while (begin < end && tokenizers::is_space(last_character(text.substr(begin, end - begin), length))) end -= length;
  return {begin, end};
}

bool is_kana(char32_t c) {
  return c >= 0x3040 && c <= 0x30FF;
}

// Whether two characters side by side are of one word.
bool joined(std::string_view text, std::size_t border) {
  std::size_t length = 0;
  const char32_t before = last_character(text.substr(0, border), length);
  const char32_t behind = first_character(text.substr(border), length);
  const auto in_word = [](char32_t c) {
    return tokenizers::is_word(c) && !tokenizers::is_punctuation(c) && !tokenizers::is_chinese(c) && !is_kana(c);
  };
  return in_word(before) && in_word(behind);
}

// Numbers of the first and last of `units` that a place is made of, where it begins and ends with one.
std::optional<std::pair<std::size_t, std::size_t>> units_at(const ByteRange& place,
                                                            std::span<const SourceToken> units) {
  const auto first = std::lower_bound(units.begin(), units.end(), place.begin,
                                      [](const SourceToken& unit, auto begin) { return unit.bytes.begin < begin; });
  const auto behind = std::upper_bound(units.begin(), units.end(), place.end,
                                       [](auto end, const SourceToken& unit) { return end < unit.bytes.end; });
  if (first == units.end() || behind <= first) return std::nullopt;
  if (first->bytes.begin != place.begin || (behind - 1)->bytes.end != place.end) return std::nullopt;
  return std::pair(static_cast<std::size_t>(first - units.begin()),
                   static_cast<std::size_t>(behind - units.begin()) - 1);
}

}  // namespace

std::vector<SourceToken> source_tokens(std::span<const tokenizers::Token> tokens, std::string_view text,
                                       const SourcePlace& source) {
  std::vector<SourceToken> result;
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const ByteRange bytes = content(text, tokens[i].begin, tokens[i].end);
    if (bytes.begin == bytes.end || bytes.begin < source.range.begin || bytes.end > source.range.end) continue;
    const std::size_t shift = source.range.begin;
    result.push_back({i, {bytes.begin - shift + source.offset, bytes.end - shift + source.offset}});
  }
  return result;
}

std::vector<SourceToken> source_words(std::span<const SourceToken> tokens, std::string_view value) {
  std::vector<SourceToken> words;
  for (const SourceToken& token : tokens) {
    const bool same =
        !words.empty() && (token.bytes.begin < words.back().bytes.end ||
                           (token.bytes.begin == words.back().bytes.end && joined(value, token.bytes.begin)));
    if (same) {
      words.back().bytes.end = std::max(words.back().bytes.end, token.bytes.end);
    } else {
      words.push_back(token);
    }
  }
  return words;
}

ByteRange span_place(const Mention& mention, std::span<const SourceToken> tokens) {
  for (const ByteRange& place : mention.places) {
    if (units_at(place, tokens)) return place;
  }
  raise(ErrorCategory::kBadData, "the span '{}' begins or ends inside a token of the text", mention.text);
}

std::vector<std::size_t> tags_of_words(const std::vector<Mention>& mentions, std::span<const SourceToken> words) {
  std::vector<std::size_t> tags(words.size(), 0);
  std::vector<const Mention*> order;
  for (const Mention& mention : mentions) order.push_back(&mention);
  // What the row places stays where it is.
  std::stable_sort(order.begin(), order.end(), [](const Mention* a, const Mention* b) {
    return a->placed != b->placed ? a->placed : a->text.size() > b->text.size();
  });
  for (const Mention* mention : order) {
    bool whole = false;
    bool marked = false;
    for (const ByteRange& place : mention->places) {
      const auto found = units_at(place, words);
      whole = whole || found.has_value();
      if (!found) continue;
      const auto [first, last] = *found;
      if (std::any_of(tags.begin() + static_cast<std::ptrdiff_t>(first),
                      tags.begin() + static_cast<std::ptrdiff_t>(last) + 1, [](std::size_t tag) { return tag != 0; }))
        continue;
      for (std::size_t word = first; word <= last; ++word) tags[word] = 2 * mention->field + (word == first ? 1 : 2);
      marked = true;
    }
    if (!whole)
      raise(ErrorCategory::kBadData, "'{}' begins or ends inside a word of the text: tags are of whole words",
            mention->text);
    if (!marked) raise(ErrorCategory::kBadData, "'{}' overlaps another part: every word has one tag", mention->text);
  }
  return tags;
}

std::vector<Window> windows_of(std::size_t count, std::size_t room) {
  constexpr std::size_t kLeast = 12;
  if (room < kLeast && room < count)
    raise(ErrorCategory::kBadData, "the wording leaves room for {} tokens of the text, {} at least are needed", room,
          kLeast);
  const std::size_t shared = room / 3;
  std::vector<Window> windows;
  for (std::size_t begin = 0;; begin += room - shared) {
    Window window{.begin = begin, .end = std::min(begin + room, count)};
    window.own_begin = begin == 0 ? 0 : begin + shared / 2;
    window.own_end = window.end == count ? count : begin + room - shared + shared / 2;
    windows.push_back(window);
    if (window.end == count) return windows;
  }
}

}  // namespace instruct::data
