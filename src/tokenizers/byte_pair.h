// Byte-pair encoding of one piece of text (Sennrich et al., "Neural machine translation of rare words with subword
// units", 2016): the piece starts as one symbol a byte or character, and the neighbours whose merge ranks best are
// joined, leftmost first, until none is left.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/piece_encoder.h"
#include "tokenizers/tables.h"

namespace instruct::tokenizers {

class BytePairEncoder final : public PieceEncoder {
 public:
  // `texts` (by id, empty for ids that text cannot become) are raw bytes of the tokens for Alphabet::kBytes, their
  // spelling for kCharacters; they and `spec` must outlive the encoder. Raises BadData for repeated tokens, for merges
  // that name unknown tokens, and when there is nothing to merge by.
  BytePairEncoder(const TokenizerSpec& spec, const std::vector<std::string>& texts);

  // Symbols that are no token become the unknown token; without one they vanish, as in the official library.
  void encode(std::string_view piece, std::size_t offset, Workspace& workspace, std::vector<Token>& out) const override;
  std::int32_t find(std::string_view text) const override { return by_text_.find(text); }

 private:
  using Part = Workspace::Part;

  void index_tokens();
  void index_token(std::int32_t id);
  void index_merges();
  void index_scores();
  std::int32_t id_of_spelling(std::string_view spelling) const;
  void encode_part(std::string_view part, std::size_t offset, Workspace& workspace, std::vector<Token>& out) const;
  void encode_parts(std::string_view piece, std::size_t offset, Workspace& workspace, std::vector<Token>& out) const;
  void split_bytes(std::string_view piece, std::vector<Part>& parts) const;
  void split_characters(std::string_view piece, std::vector<Part>& parts) const;
  void push_unknown(std::uint32_t begin, std::uint32_t end, std::vector<Part>& parts) const;
  void rank_pair(Part& left, const Part& right) const;
  void merge_short(std::vector<Part>& parts) const;
  void merge_long(Workspace& workspace) const;

  const TokenizerSpec& spec_;
  const std::vector<std::string>& texts_;
  TextTable by_text_;
  PairTable pairs_{0};
  std::array<std::int32_t, 256> byte_ids_{};
  // By id: whether the text of the token encodes to just this token. Filled as texts come by.
  enum class Whole : std::uint8_t { kUnknown, kYes, kNo };
  std::unique_ptr<std::atomic<Whole>[]> whole_;
  bool cut_at_spaces_ = false;
};

}  // namespace instruct::tokenizers
