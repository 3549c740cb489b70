// Cutting a document into paragraphs, sentences, lines and words, in English and Chinese text (and what writes like
// them).
//
// - A paragraph ends at a blank line, or before a line that starts with an ideographic space (the Chinese indent).
// - A sentence ends at . ! ? 。 ！ ？ and the closing quotes and brackets behind them, never outside its paragraph; a
//   line that starts with a bullet starts a sentence. A full stop inside a number, behind a known abbreviation or a
//   single letter ends nothing, nor one before a lower-case word when the word before it is short (likely an
//   abbreviation).
// - A line is a line with something on it. A word is what stands between white space; each Chinese or Japanese
//   character is a word of its own.
//
// These are rules, not a model: they cannot know every abbreviation. White space around a unit does not belong to it.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace instruct::instructions {

enum class TextUnit { kDocument, kParagraph, kSentence, kLine, kWord };

// "document", "paragraph", "sentence", "line" or "word".
std::string_view unit_name(TextUnit unit);

// Bytes [begin, end) of a document.
struct ByteRange {
  std::size_t begin = 0;
  std::size_t end = 0;
  friend bool operator==(const ByteRange&, const ByteRange&) = default;
};

// Ranges of the units of `text` in order, not overlapping, none empty; they start and end at character boundaries of
// valid UTF-8. kDocument: the text without white space at its ends, or nothing when there is only white space.
std::vector<ByteRange> segment(std::string_view text, TextUnit unit);

}  // namespace instruct::instructions
