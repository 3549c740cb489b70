#include "base/hash.h"

#include <openssl/evp.h>

#include <algorithm>
#include <array>
#include <memory>

#include "base/error.h"
#include "base/file.h"

namespace instruct {
namespace {

constexpr std::size_t kPiece = 16 << 20;

struct FreeContext {
  void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
};

// `after_piece` is called when a piece has been read.
template <typename Body>
std::string sha256(std::string_view bytes, const Body& after_piece) {
  const std::unique_ptr<EVP_MD_CTX, FreeContext> context(EVP_MD_CTX_new());
  bool good = context != nullptr && EVP_DigestInit_ex(context.get(), EVP_sha256(), nullptr) == 1;
  for (std::size_t at = 0; good && at < bytes.size(); at += kPiece) {
    const std::string_view piece = bytes.substr(at, kPiece);
    good = EVP_DigestUpdate(context.get(), piece.data(), piece.size()) == 1;
    after_piece();
  }
  std::array<unsigned char, 32> digest{};
  if (!good || EVP_DigestFinal_ex(context.get(), digest.data(), nullptr) != 1)
    raise(ErrorCategory::kInternal, "SHA-256 of {} bytes failed", bytes.size());
  std::string text;
  for (const unsigned char byte : digest) text += fmt::format("{:02x}", byte);
  return text;
}

}  // namespace

std::string sha256_hex(std::string_view bytes) {
  return sha256(bytes, [] {});
}

std::string sha256_of_file(const std::filesystem::path& path) {
  const auto file = MappedFile::open(path);
  const std::string_view bytes(reinterpret_cast<const char*>(file->bytes().data()), file->bytes().size());
  return sha256(bytes, [&] { file->release(); });
}

}  // namespace instruct
