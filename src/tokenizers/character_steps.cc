#include "tokenizers/character_steps.h"

#include "base/text.h"
#include "tokenizers/characters.h"

namespace instruct::tokenizers {
namespace {

// step(character, begin, end, writer) for each character, or for those above U+007F alone.
enum class Ascii { kAsk, kSkip };
template <Ascii Asked, typename Step>
void for_each_character(AlignedText& text, const Step& step) {
  const std::string_view view = text.view();
  if (Asked == Ascii::kSkip && is_ascii(view)) return;
  AlignedText::Writer writer(text);
  for (std::size_t at = 0; at < view.size();) {
    if (Asked == Ascii::kSkip && static_cast<unsigned char>(view[at]) < 0x80) {
      ++at;
      continue;
    }
    std::size_t length = 0;
    const char32_t c = first_character(view.substr(at), length);
    step(c, at, at + length, writer);
    at += length;
  }
  writer.finish();
}

}  // namespace

void lowercase(AlignedText& text) {
  std::string put;
  for_each_character<Ascii::kAsk>(text,
                                  [&](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                    const Lower lower = to_lower(c);
                                    if (lower.first == c) return;
                                    put.clear();
                                    append_utf8(put, lower.first);
                                    if (lower.second != 0) append_utf8(put, lower.second);
                                    writer.replace(begin, end, put);
                                  });
}

void strip_accents(AlignedText& text) {
  for_each_character<Ascii::kSkip>(text,
                                   [](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                     if (is_mark(c)) writer.replace(begin, end, {});
                                   });
}

void nmt(AlignedText& text) {
  for_each_character<Ascii::kAsk>(text,
                                  [](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                    if (is_removed_by_nmt(c)) {
                                      writer.replace(begin, end, {});
                                    } else if (c != ' ' && is_space_to_nmt(c)) {
                                      writer.replace(begin, end, " ");
                                    }
                                  });
}

void strip(AlignedText& text, Ends ends) {
  const std::string_view view = text.view();
  const auto has = [&](Ends end) { return (static_cast<int>(ends) & static_cast<int>(end)) != 0; };
  std::size_t begin = 0;
  std::size_t end = view.size();
  std::size_t length = 0;
  while (has(Ends::kLeft) && begin < end && is_space(first_character(view.substr(begin), length))) begin += length;
  while (has(Ends::kRight) && begin < end && is_space(last_character(view.substr(begin, end - begin), length)))
    end -= length;
  AlignedText::Writer writer(text);
  if (begin > 0) writer.replace(0, begin, {});
  if (end < view.size()) writer.replace(end, view.size(), {});
  writer.finish();
}

void bert_clean(AlignedText& text) {
  for_each_character<Ascii::kAsk>(text,
                                  [](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                    if (c == 0xFFFD || is_control(c)) {
                                      writer.replace(begin, end, {});
                                    } else if (c != ' ' && is_space(c)) {
                                      writer.replace(begin, end, " ");
                                    }
                                  });
}

void bert_chinese(AlignedText& text) {
  std::string put;
  for_each_character<Ascii::kSkip>(text,
                                   [&](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                     if (!is_chinese(c)) return;
                                     put = ' ';
                                     append_utf8(put, c);
                                     put += ' ';
                                     writer.replace(begin, end, put);
                                   });
}

void bert_accents(AlignedText& text) {
  for_each_character<Ascii::kSkip>(text,
                                   [](char32_t c, std::size_t begin, std::size_t end, AlignedText::Writer& writer) {
                                     if (is_accent(c)) writer.replace(begin, end, {});
                                   });
}

}  // namespace instruct::tokenizers
