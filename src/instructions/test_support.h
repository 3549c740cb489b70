// A small byte-level tokenizer and helpers for the tests of this folder.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "tokenizers/byte_level.h"
#include "tokenizers/tokenizer.h"

namespace instruct::instructions::testing {

// Ids 0-255 are the bytes; then the results of `merges` in order; then <|endoftext|> (eos), <|im_start|>, <|im_end|>
// and <s> (bos).
inline tokenizers::Tokenizer tiny_tokenizer(const std::vector<std::pair<std::string, std::string>>& merges = {{"~",
                                                                                                               "~"}},
                                            bool add_bos = false) {
  tokenizers::TokenizerSpec spec;
  spec.name = "tiny";
  for (int byte = 0; byte < 256; ++byte)
    spec.tokens.push_back(tokenizers::spelling_of_bytes(std::string(1, static_cast<char>(byte))));
  for (const auto& [left, right] : merges) {
    spec.merges.emplace_back(tokenizers::spelling_of_bytes(left), tokenizers::spelling_of_bytes(right));
    spec.tokens.push_back(tokenizers::spelling_of_bytes(left + right));
  }
  spec.kinds.assign(spec.tokens.size(), tokenizers::TokenKind::kNormal);
  for (const char* special : {"<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>"}) {
    spec.tokens.emplace_back(special);
    spec.kinds.push_back(tokenizers::TokenKind::kSpecial);
  }
  const auto count = static_cast<std::int32_t>(spec.tokens.size());
  spec.eos = count - 4;
  spec.bos = count - 1;
  spec.add_bos = add_bos;
  spec.splits = tokenizers::splits_of_gguf_name("gpt-2");
  return tokenizers::Tokenizer(std::move(spec));
}

// The message of the error that `body` raises, or "no error".
template <typename Body>
std::string error_of(const Body& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace instruct::instructions::testing
