#include "tokenizers/word_piece.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::tokenizers {
namespace {

std::int64_t count_characters(std::string_view text) {
  return std::count_if(text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

}  // namespace

WordPieceEncoder::WordPieceEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts)
    : spec_(spec), trie_(texts) {
  for (const std::int32_t id : trie_.repeated()) {
    const auto i = static_cast<std::size_t>(id);
    if (spec.kinds[i] == TokenKind::kUserDefined) continue;
    raise(ErrorCategory::kBadData, "{}: token '{}' appears twice (ids {} and {})", spec.name, spec.tokens[i],
          trie_.find(texts[i]), id);
  }
  if (!spec.unknown) {
    raise(ErrorCategory::kBadData,
          "{}: WordPiece needs an unknown token, for words that no tokens make, and the file names none of its "
          "vocabulary",
          spec.name);
  }
  inside_ = trie_.root();
  for (const char byte : spec.continuing_prefix) {
    if (inside_ != Trie::kNowhere) inside_ = trie_.next(inside_, byte);
  }
}

void WordPieceEncoder::encode(std::string_view piece, std::size_t offset, Workspace&, std::vector<Token>& out) const {
  const std::size_t first = out.size();
  const auto place = [&](std::size_t at) { return static_cast<std::uint32_t>(offset + at); };
  bool known =
      piece.size() <= static_cast<std::uint64_t>(spec_.longest_word) || count_characters(piece) <= spec_.longest_word;
  for (std::size_t at = 0; known && at < piece.size();) {
    std::uint32_t node = at == 0 ? trie_.root() : inside_;
    std::int32_t longest = -1;
    std::size_t end = at;
    for (std::size_t i = at; node != Trie::kNowhere && i < piece.size();) {
      node = trie_.next(node, piece[i++]);
      if (node == Trie::kNowhere || trie_.id(node) < 0) continue;
      longest = trie_.id(node);
      end = i;
    }
    known = longest >= 0;
    if (known) out.push_back({longest, place(at), place(end)});
    at = end;
  }
  if (known) return;
  out.resize(first);
  out.push_back({*spec_.unknown, place(0), place(piece.size())});
}

}  // namespace instruct::tokenizers
