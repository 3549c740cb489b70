#include "tokenizers/byte_level.h"

#include "base/text.h"

namespace instruct::tokenizers {
namespace {

bool stands_for_itself(unsigned byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

// Bytes without a printable character of their own get 256, 257, ... in order.
std::array<char32_t, 256> make_characters() {
  std::array<char32_t, 256> characters{};
  char32_t next = 256;
  for (unsigned byte = 0; byte < 256; ++byte) characters[byte] = stands_for_itself(byte) ? byte : next++;
  return characters;
}

}  // namespace

const std::array<char32_t, 256>& byte_characters() {
  static const std::array<char32_t, 256> characters = make_characters();
  return characters;
}

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  constexpr char32_t kLimit = 512;  // the alphabet ends at U+0143
  static const std::array<std::int16_t, kLimit> bytes = [] {
    std::array<std::int16_t, kLimit> table{};
    table.fill(-1);
    for (std::size_t byte = 0; byte < 256; ++byte) table[byte_characters()[byte]] = static_cast<std::int16_t>(byte);
    return table;
  }();
  std::string result;
  for (std::size_t i = 0; i < spelling.size(); ++i) {
    std::size_t character = static_cast<unsigned char>(spelling[i]);
    if (character >= 0x80) {  // all others of the alphabet take two bytes
      if (character < 0xC2 || character >= 0xE0 || ++i == spelling.size()) return std::nullopt;
      const auto second = static_cast<unsigned char>(spelling[i]);
      if ((second & 0xC0) != 0x80) return std::nullopt;
      character = (character & 0x1F) << 6 | (second & 0x3F);
    }
    if (character >= kLimit || bytes[character] < 0) return std::nullopt;
    result += static_cast<char>(bytes[character]);
  }
  return result;
}

std::string spelling_of_bytes(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) append_utf8(result, byte_characters()[static_cast<unsigned char>(byte)]);
  return result;
}

std::optional<std::uint8_t> byte_of_fallback_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return std::nullopt;
  constexpr std::string_view kDigits = "0123456789ABCDEF";
  const std::size_t high = kDigits.find(token[3]);
  const std::size_t low = kDigits.find(token[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return std::nullopt;
  return static_cast<std::uint8_t>(high * 16 + low);
}

}  // namespace instruct::tokenizers
