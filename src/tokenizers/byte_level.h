// GPT-2's byte alphabet: every byte has a printable character that stands for it in vocabularies (Radford et al.,
// 2019).
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>

namespace instruct::tokenizers {

// The character of each byte.
const std::array<char32_t, 256>& byte_characters();
// Raw bytes of a token spelled in that alphabet; nullopt when a character is outside it.
std::optional<std::string> bytes_of_spelling(std::string_view spelling);
// The spelling of raw bytes.
std::string spelling_of_bytes(std::string_view bytes);

}  // namespace instruct::tokenizers
