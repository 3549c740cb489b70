// Which tokens of a rendered dialogue are trained. Internal to this folder; instructions/dialogue.h says what and why.
#pragma once

#include <span>
#include <vector>

#include "instructions/dialogue.h"

namespace instruct::instructions {

// The template's own text; neighbours joined.
std::vector<tokenizers::TextRange> template_ranges(const templates::Rendered& rendered);

// Bytes of the answers, in order: the template's {% generation %} blocks if it has any, else every assistant message
// from where its served prompt ends to its last own character.
std::vector<tokenizers::TextRange> answer_ranges(const templates::Rendered& rendered, std::span<const Message> messages,
                                                 const ServedPrompt& served);

// Sets `trained`, `seams` and `end_trained` of `result` for the tokens of the answers and of the end-of-turn tokens
// behind them. `result.trained` has the size of `tokens`.
void mark_answers(std::span<const tokenizers::TextRange> answers, std::span<const tokenizers::Token> tokens,
                  const tokenizers::Tokenizer& tokenizer, const templates::Rendered& rendered,
                  const ServedPrompt& served, EncodedDialogue& result);

}  // namespace instruct::instructions
