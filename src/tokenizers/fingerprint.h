#pragma once

#include <string>

#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// SHA-256 over everything that decides which ids a text gets. Adapters keep it, so what it was for a tokenizer it
// stays: parts that came later count only where they are used.
std::string fingerprint_of(const TokenizerSpec& spec);

}  // namespace instruct::tokenizers
