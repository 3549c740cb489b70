// What an encoder-decoder learns from plain text: spans left out of it, which the answer writes (Raffel et al., "T5",
// 2020).
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/random.h"
#include "data/layout.h"
#include "tokenizers/tokenizer.h"

namespace instruct::data {

struct DenoiseOptions {
  double rate = 0.15;      // of tokens that are left out
  double mean_length = 3;  // of a span, tokens
};

// The tokens that stand for spans: <extra_id_0>, <extra_id_1>, ... Raises Unsupported when the tokenizer has none.
std::vector<std::int32_t> sentinels_of(const tokenizers::Tokenizer& tokenizer);

// A text's tokens with spans of random lengths left out, each replaced by the next sentinel: the source. The answer has
// every sentinel with the tokens of its span. Both end with `end`; the answer starts from `start`. At least one token
// is left out and one stays; the text begins with one that stays. Raises InvalidArgument for fewer than two tokens.
EncodedRow denoised_row(std::span<const std::int32_t> text, std::span<const std::int32_t> sentinels, std::int32_t start,
                        std::int32_t end, const DenoiseOptions& options, RandomStream random);

}  // namespace instruct::data
