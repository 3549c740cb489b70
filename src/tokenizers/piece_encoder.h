// What turns one piece of text, after normalising and splitting, into tokens.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// Buffers of one caller, reused from piece to piece.
struct Workspace {
  // A symbol of byte-pair encoding.
  struct Part {
    std::int32_t id;
    std::uint32_t begin, end;
    std::int32_t rank, result;    // of joining it with its right neighbour
    std::int32_t previous, next;  // neighbours, -1 at the ends; only in long pieces
  };
  std::vector<Part> parts;
  std::vector<std::uint64_t> heap;

  // The best way to cut what lies before a place: how likely, and the last token.
  static constexpr std::uint32_t kNoCut = ~std::uint32_t{0};
  struct Cut {
    double score = 0;
    std::uint32_t from = kNoCut;
    std::int32_t id = -1;
  };
  std::vector<Cut> cuts;
  std::vector<Token> found;

  std::string text;  // a piece with what is put in front of it
};

class PieceEncoder {
 public:
  virtual ~PieceEncoder() = default;
  // Appends the tokens of `piece`, valid UTF-8 that starts at byte `offset` of the text.
  virtual void encode(std::string_view piece, std::size_t offset, Workspace& workspace,
                      std::vector<Token>& out) const = 0;
  // The id of a text as it is looked up, or -1.
  virtual std::int32_t find(std::string_view text) const = 0;

 protected:
  PieceEncoder() = default;
  PieceEncoder(const PieceEncoder&) = default;
  PieceEncoder& operator=(const PieceEncoder&) = default;
};

}  // namespace instruct::tokenizers
