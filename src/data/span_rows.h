// Parts of a text as an encoder finds them: where a variable's text is among the tokens, which tokens and words there
// are of it, and what is true of these.
//
// A span (an answer) starts and ends at a token. Extraction says a tag for each word, read off its first token: what
// models for named entities are trained with, and what makes no entity end inside a word. A word is what BERT calls
// one: letters, digits and marks in a row; other characters, Chinese and Japanese ones too, stand alone.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "instructions/extraction.h"
#include "tokenizers/tokenizer.h"

namespace instruct::data {

using instructions::ByteRange;

// Where the value of a variable stands in a text of the row: bytes [range.begin, range.end) there are its own from
// `offset` on.
struct SourcePlace {
  std::size_t text = 0;  // first or second
  tokenizers::TextRange range;
  std::size_t offset = 0;
};

// A token of the source, without white space at its ends, on borders of characters.
struct SourceToken {
  std::size_t token = 0;  // its number among those given
  ByteRange bytes;        // of the source
};

// Those of `tokens` (of the text that the source stands in, whose content is `text`) that lie within the source and
// hold more than white space.
std::vector<SourceToken> source_tokens(std::span<const tokenizers::Token> tokens, std::string_view text,
                                       const SourcePlace& source);
// Words: the first token of each, and all of its bytes. `value` is the source.
std::vector<SourceToken> source_words(std::span<const SourceToken> tokens, std::string_view value);

// The place of a span that begins and ends with a token: the one that the row gives, else the first. Raises BadData
// where there is none.
ByteRange span_place(const instructions::Mention& mention, std::span<const SourceToken> tokens);
// The tag of each word, as numbers of instructions::extraction_tags(). Longer parts come first; what lies inside of
// them is passed over where the text has it elsewhere too. Raises BadData for a part that begins or ends inside a word,
// and for parts that overlap.
std::vector<std::size_t> tags_of_words(const std::vector<instructions::Mention>& mentions,
                                       std::span<const SourceToken> words);

// Windows over `count` tokens, `room` at a time, a third of which the next one has too. Of what two have each keeps the
// half that is nearer to its middle: `own`.
struct Window {
  std::size_t begin = 0, end = 0;
  std::size_t own_begin = 0, own_end = 0;
};
std::vector<Window> windows_of(std::size_t count, std::size_t room);

}  // namespace instruct::data
