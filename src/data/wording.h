// The wording of a call as an encoder takes it in: a text or a pair of texts, with what the template wrote in each, and
// cutting their tokens to what fits. Internal to this folder.
#pragma once

#include <string>
#include <vector>

#include "data/encode.h"
#include "templates/template.h"
#include "tokenizers/tokenizer.h"

namespace instruct::data {

// The text of a call cut into one or two, with the template's own text in each.
struct Worded {
  struct Part {
    std::string text;
    std::vector<tokenizers::TextRange> own;    // the template's
    std::vector<tokenizers::TextRange> given;  // the variables'
  };
  std::vector<Part> parts{1};
};

// "[SEP]" of the template makes a second text; `gap` stands for each "[MASK]" of it.
Worded cut(const templates::Rendered& rendered, const std::string& gap);

// Tokens by text.
using Texts = std::vector<std::vector<tokenizers::Token>>;
std::size_t total(const Texts& texts);
// Keeps the sum of all at most `room`, taking from the longest at the end of what variables gave, or from its start;
// the wording stays. Raises BadData where that is too long itself.
void shorten(Texts& texts, const Worded& worded, std::size_t room, Overflow overflow);
// With the model's special tokens around.
tokenizers::EncodedInput frame(const tokenizers::Tokenizer& tokenizer, const Texts& texts);

}  // namespace instruct::data
