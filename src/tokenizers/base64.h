// Base64 (RFC 4648), as tokenizer.json spells bytes.
#pragma once

#include <string>
#include <string_view>

namespace instruct::tokenizers {

// Raises BadData naming `origin` and the place of what is none.
std::string bytes_of_base64(std::string_view text, const std::string& origin);
std::string base64_of_bytes(std::string_view bytes);

}  // namespace instruct::tokenizers
