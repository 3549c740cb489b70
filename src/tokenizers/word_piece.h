// WordPiece (Devlin et al., "BERT", 2018): a word becomes the longest token it begins with, then the longest token
// spelled "##" and what follows, to its end. A word that does not come out so is unknown as a whole.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/piece_encoder.h"
#include "tokenizers/trie.h"

namespace instruct::tokenizers {

class WordPieceEncoder final : public PieceEncoder {
 public:
  // `texts` by id, empty for ids that text cannot become. Raises BadData for repeated tokens and without an unknown
  // token. `spec` must outlive the encoder.
  WordPieceEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts);

  void encode(std::string_view piece, std::size_t offset, Workspace& workspace, std::vector<Token>& out) const override;
  std::int32_t find(std::string_view text) const override { return trie_.find(text); }

 private:
  const TokenizerSpec& spec_;
  Trie trie_;
  std::uint32_t inside_ = Trie::kNowhere;  // where the continuing prefix leads to
};

}  // namespace instruct::tokenizers
