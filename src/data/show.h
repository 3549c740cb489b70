// `instruct data show`: a row as the model sees it, with what is trained marked.
#pragma once

#include <string>
#include <vector>

#include "instructions/dialogue.h"

namespace instruct::data {

struct ShownRow {
  std::string title;  // "rows.jsonl: row 3"
  instructions::EncodedDialogue encoded;
};

enum class Colour { kNever, kAlways };

// A row for a terminal: a line about it, then its text. In colour, trained tokens are green with their ends visible by
// changing shades and special tokens dim; without, trained text stands between «» and tokens are not told apart.
std::string show_row(const ShownRow& row, const tokenizers::Tokenizer& tokenizer, Colour colour);

// A page with all rows, complete in one file; pointing at a token shows its number and id.
std::string show_html(const std::vector<ShownRow>& rows, const tokenizers::Tokenizer& tokenizer);

}  // namespace instruct::data
