#include "base/hash.h"

#include <openssl/evp.h>

#include <array>

#include "base/error.h"

namespace instruct {

std::string sha256_hex(std::string_view bytes) {
  std::array<unsigned char, 32> digest{};
  unsigned int length = 0;
  if (EVP_Digest(bytes.data(), bytes.size(), digest.data(), &length, EVP_sha256(), nullptr) != 1) {
    raise(ErrorCategory::kInternal, "SHA-256 of {} bytes failed", bytes.size());
  }
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace instruct
