// How vocabularies spell raw bytes: GPT-2's byte alphabet, where every byte has a printable character that stands for
// it (Radford et al., 2019), and SentencePiece's "<0x0A>".
#pragma once

#include <array>
#include <cstdint>
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
// The byte that "<0x00>" to "<0xFF>" (upper case) stands for; nullopt for any other token.
std::optional<std::uint8_t> byte_of_fallback_token(std::string_view token);

}  // namespace instruct::tokenizers
