#include "tokenizers/byte_level.h"

#include <unordered_map>

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
  static const std::unordered_map<char32_t, char> bytes = [] {
    std::unordered_map<char32_t, char> map;
    for (unsigned byte = 0; byte < 256; ++byte) map[byte_characters()[byte]] = static_cast<char>(byte);
    return map;
  }();
  std::string result;
  for (const char32_t character : decode_utf8(spelling)) {
    const auto found = bytes.find(character);
    if (found == bytes.end()) return std::nullopt;
    result += found->second;
  }
  return result;
}

std::string spelling_of_bytes(std::string_view bytes) {
  std::string result;
  for (const char byte : bytes) append_utf8(result, byte_characters()[static_cast<unsigned char>(byte)]);
  return result;
}

}  // namespace instruct::tokenizers
