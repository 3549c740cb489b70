#include "tokenizers/normalise.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>

#include "base/error.h"
#include "base/text.h"
#include "tokenizers/character_steps.h"
#include "tokenizers/characters.h"

namespace instruct::tokenizers {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

using Edits = std::vector<AlignedText::Edit>;

utf8proc_option_t option_of(NormaliserKind kind) {
  switch (kind) {
    case NormaliserKind::kNfd:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE);
    case NormaliserKind::kNfkc:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case NormaliserKind::kNfkd:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
    default:
      return static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE);
  }
}

std::string unicode_form(std::string_view text, utf8proc_option_t option) {
  utf8proc_uint8_t* result = nullptr;
  const auto length = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                                   static_cast<utf8proc_ssize_t>(text.size()), &result, option);
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, std::free);
  if (length < 0) {
    raise(ErrorCategory::kInternal, "normalising a text of {} bytes: {}", text.size(), utf8proc_errmsg(length));
  }
  return {reinterpret_cast<const char*>(result), static_cast<std::size_t>(length)};
}

// utf8proc and the official library differ in the characters that came with Unicode 12.1 and later (U+32FF is the only
// one seen), in the compatibility forms alone.
//
// Whether no character before `character` can combine with it or change places with what it decomposes to.
bool starts_anew(utf8proc_int32_t character, utf8proc_option_t option) {
  if (character < 0x80) return true;
  utf8proc_int32_t parts[32];
  int boundary = 0;
  const auto compat = static_cast<utf8proc_option_t>((option & UTF8PROC_COMPAT) | UTF8PROC_DECOMPOSE);
  if (utf8proc_decompose_char(character, parts, 32, compat, &boundary) < 1) return true;
  const utf8proc_property_t* property = utf8proc_get_property(parts[0]);
  const bool mark = property->category == UTF8PROC_CATEGORY_MN || property->category == UTF8PROC_CATEGORY_MC ||
                    property->category == UTF8PROC_CATEGORY_ME;
  const bool jamo_behind_another = parts[0] >= 0x1160 && parts[0] <= 0x11FF;
  return property->combining_class == 0 && !mark && !jamo_behind_another;
}

bool is_inside(std::string_view text, std::size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

// `from`, which starts at byte `begin`, becomes `to`: without the characters that both begin or end with.
AlignedText::Edit smallest_edit(std::string_view from, std::string_view to, std::size_t begin) {
  std::size_t same = 0;
  while (same < std::min(from.size(), to.size()) && from[same] == to[same]) ++same;
  while (is_inside(from, same) || is_inside(to, same)) --same;
  from.remove_prefix(same);
  to.remove_prefix(same);
  std::size_t end = 0;
  while (end < std::min(from.size(), to.size()) && from[from.size() - end - 1] == to[to.size() - end - 1]) ++end;
  while (is_inside(from, from.size() - end) || is_inside(to, to.size() - end)) --end;
  return {begin + same, begin + same + from.size() - end, std::string(to.substr(0, to.size() - end))};
}

// What a character is decomposed to begins with what it was without its marks: that stands for this character alone,
// though marks behind it are put in order with its own.
void add_edit(AlignedText::Edit edit, std::string_view text, utf8proc_option_t option, Edits& edits) {
  std::size_t first = 0;
  std::size_t base = 0;
  if ((option & UTF8PROC_DECOMPOSE) != 0 && edit.begin < edit.end && !edit.text.empty()) {
    first_character(text.substr(edit.begin), first);
    first_character(edit.text, base);
  }
  if (edit.begin + first < edit.end && base > 0) {
    edits.push_back({edit.begin, edit.begin + first, edit.text.substr(0, base)});
    edit.begin += first;
    edit.text.erase(0, base);
  }
  edits.push_back(std::move(edit));
}

// The smallest stretches that a form changes on their own.
Edits unicode_edits(std::string_view text, utf8proc_option_t option) {
  Edits edits;
  std::size_t begin = 0;
  const auto close = [&](std::size_t end) {
    const std::string_view part = text.substr(begin, end - begin);
    if (!is_ascii(part)) {
      const std::string form = unicode_form(part, option);
      if (form != part) add_edit(smallest_edit(part, form, begin), text, option, edits);
    }
    begin = end;
  };
  for (std::size_t at = 0; at < text.size();) {
    utf8proc_int32_t character = 0;
    const auto length = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data() + at),
                                         static_cast<utf8proc_ssize_t>(text.size() - at), &character);
    if (at > begin && starts_anew(character, option)) close(at);
    at += static_cast<std::size_t>(std::max<utf8proc_ssize_t>(length, 1));
  }
  close(text.size());
  return edits;
}

void to_unicode_form(AlignedText& text, NormaliserKind kind) {
  const std::string_view view = text.view();
  if (is_ascii(view)) return;
  const utf8proc_option_t option = option_of(kind);
  if (unicode_form(view, option) != view) text.apply(unicode_edits(view, option));
}

void apply_to_characters(AlignedText& text, const NormaliserStep& step) {
  switch (step.kind) {
    case NormaliserKind::kLowercase:
      return lowercase(text);
    case NormaliserKind::kStripAccents:
      return strip_accents(text);
    case NormaliserKind::kNmt:
      return nmt(text);
    case NormaliserKind::kStrip:
      return strip(text, step.text == "left" ? Ends::kLeft : step.text == "right" ? Ends::kRight : Ends::kBoth);
    case NormaliserKind::kBertClean:
      return bert_clean(text);
    case NormaliserKind::kBertChinese:
      return bert_chinese(text);
    case NormaliserKind::kBertAccents:
      to_unicode_form(text, NormaliserKind::kNfd);
      return bert_accents(text);
    default:
      return to_unicode_form(text, step.kind);
  }
}

}  // namespace

void repair(AlignedText& text) {
  const std::string_view view = text.view();
  Edits edits;
  for (std::size_t at = 0;;) {
    const auto bad = find_invalid_utf8(view.substr(at));
    if (!bad) break;
    at += *bad;
    std::size_t length = 1;
    while (length < 3 && at + length < view.size() && repair_utf8(view.substr(at, length + 1)) == kReplacement)
      ++length;
    edits.push_back({at, at + length, std::string(kReplacement)});
    at += length;
  }
  text.apply(edits);
}

Normaliser::Normaliser(const std::vector<NormaliserStep>& steps, const std::string& origin) {
  for (const NormaliserStep& step : steps) {
    Step made{step, {}, std::nullopt, nullptr};
    if (step.kind == NormaliserKind::kCharsmap || step.kind == NormaliserKind::kLongestCharsmap)
      made.charsmap = std::make_shared<const Charsmap>(step.text, origin);
    if (step.kind == NormaliserKind::kReplace) {
      if (const auto literal = literal_of_pattern(step.pattern)) {
        made.literal = *literal;
      } else {
        made.pattern.emplace(step.pattern);
      }
    }
    steps_.push_back(std::move(made));
  }
}

namespace {

// What is put in stands for the last character it replaces, as in the official library.
void replace_match(std::string_view view, TextRange match, std::string_view put, AlignedText::Writer& writer) {
  std::size_t last = match.end;
  while (last > match.begin && is_inside(view, --last)) continue;
  if (last > match.begin) writer.replace(match.begin, last, {});
  writer.replace(last, match.end, put);
}

void replace_literal(AlignedText& text, std::string_view literal, std::string_view put) {
  const std::string_view view = text.view();
  AlignedText::Writer writer(text);
  for (std::size_t at = view.find(literal); at != std::string_view::npos; at = view.find(literal, at + literal.size()))
    replace_match(view, {at, at + literal.size()}, put, writer);
  writer.finish();
}

void replace_pattern(AlignedText& text, const Pattern& pattern, std::string_view put) {
  const std::string_view view = text.view();
  AlignedText::Writer writer(text);
  Pattern::Matches matches(pattern, view);
  while (const auto found = matches.next()) replace_match(view, *found, put, writer);
  writer.finish();
}

void put_in_front(AlignedText& text, const NormaliserStep& step) {
  if (step.kind != NormaliserKind::kPrepend && text.view().starts_with(step.text)) return;
  if (step.kind == NormaliserKind::kPrefixFirst && text.origin(0, 0).begin != 0) return;
  AlignedText::Writer writer(text);
  writer.replace(0, 0, step.text);
  writer.finish();
}

}  // namespace

void Normaliser::apply(AlignedText& text) const {
  for (const Step& made : steps_) {
    if (text.view().empty()) return;
    switch (made.step.kind) {
      case NormaliserKind::kReplace:
        if (made.pattern) {
          replace_pattern(text, *made.pattern, made.step.text);
        } else {
          replace_literal(text, made.literal, made.step.text);
        }
        break;
      case NormaliserKind::kPrepend:
      case NormaliserKind::kPrefix:
      case NormaliserKind::kPrefixFirst:
        put_in_front(text, made.step);
        break;
      case NormaliserKind::kCharsmap:
        made.charsmap->apply(text);
        break;
      case NormaliserKind::kLongestCharsmap:
        made.charsmap->apply_longest(text);
        break;
      default:
        apply_to_characters(text, made.step);
    }
  }
}

}  // namespace instruct::tokenizers
