// Rows that are too long, made to fit: see encode.h for the rules.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "data/encode.h"

namespace instruct::data {

// Encodes an example; may raise for one that has lost something it needs.
using Encode = std::function<instructions::EncodedDialogue(const Example&)>;

// The example cut on its left until it has at most `cutoff` tokens; nullopt when that would leave less than a few words
// of its input. `set` may be null; then instruction rows cannot be cut.
std::optional<instructions::EncodedDialogue> fit_left(Example example, std::int64_t cutoff, const Encode& encode,
                                                      const instructions::InstructionSet* set);

// The dialogue as several of at most `cutoff` tokens, each of whole exchanges; nullopt when one exchange alone is
// longer, or when there is only one.
std::optional<std::vector<instructions::EncodedDialogue>> split_dialogue(const Example& example, std::int64_t cutoff,
                                                                         const Encode& encode);

// Tokens without a template. `bos`: the token every piece starts with, when the row does. Each trained token is trained
// once: a piece starts with the last token of the one before it, as context. cutoff: at least 2 (3 with bos).
std::vector<EncodedRow> split_tokens(const EncodedRow& row, std::int64_t cutoff, std::optional<std::int32_t> bos);
EncodedRow keep_right(const EncodedRow& row, std::int64_t cutoff, std::optional<std::int32_t> bos);

}  // namespace instruct::data
