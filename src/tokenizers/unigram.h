// Unigram (Kudo, "Subword Regularization", 2018): of all ways to cut a piece into tokens the likeliest, found with
// Viterbi's algorithm from left to right.
#pragma once

#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/piece_encoder.h"
#include "tokenizers/trie.h"

namespace instruct::tokenizers {

class UnigramEncoder final : public PieceEncoder {
 public:
  // `texts` by id, empty for ids that text cannot become; tokens whose score is not a number are left out too. Raises
  // BadData for repeated tokens, a wrong number of scores, and when there is neither an unknown token nor one for each
  // byte. `spec` must outlive the encoder.
  UnigramEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts);

  void encode(std::string_view piece, std::size_t offset, Workspace& workspace, std::vector<Token>& out) const override;
  std::int32_t find(std::string_view text) const override {
    const std::int32_t id = trie_.find(text);
    return is_foreign(id) ? -1 : id;
  }

 private:
  void index_bytes();
  void find_best(std::string_view piece, std::vector<Workspace::Cut>& cuts) const;
  void push_unknown(std::string_view part, std::size_t offset, std::vector<Token>& out) const;

  bool is_foreign(std::int32_t id) const { return id >= static_cast<std::int32_t>(spec_.tokens.size()); }

  const TokenizerSpec& spec_;
  Trie trie_;                   // foreign pieces have the ids behind those of tokens
  std::vector<double> scores_;  // by id of the trie
  double unknown_score_ = 0;
  std::array<std::int32_t, 256> byte_ids_{};
  bool has_bytes_ = false;  // a token for each byte
};

}  // namespace instruct::tokenizers
