// `instruct data show`: a row as the model sees it, with what is trained marked.
#pragma once

#include <string>
#include <vector>

#include "data/text_rows.h"
#include "instructions/dialogue.h"

namespace instruct::data {

struct ShownRow {
  std::string title;  // "rows.jsonl: row 3"
  instructions::EncodedDialogue encoded;
};

enum class Colour { kNever, kAlways };

// A row of an encoder: marked is what its output says (the tokens of a span, the first ones of extracted words, chosen
// sentences), a gap, what may be masked, or for labels of the text what they are read off. `output` goes to the title.
ShownRow shown_text(const std::string& title, const TextRow& row, const std::string& output,
                    const tokenizers::Tokenizer& tokenizer);

// A row for a terminal: a line about it, then its text. In colour, trained tokens are green with their ends visible by
// changing shades and special tokens dim; without, trained text stands between «» and tokens are not told apart.
std::string show_row(const ShownRow& row, const tokenizers::Tokenizer& tokenizer, Colour colour);

// A page with all rows, complete in one file; pointing at a token shows its number and id.
std::string show_html(const std::vector<ShownRow>& rows, const tokenizers::Tokenizer& tokenizer);

}  // namespace instruct::data
