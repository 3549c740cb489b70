// SentencePiece's .model files: a protocol buffer of pieces with scores, how they were trained, and how text is
// normalised (google/sentencepiece, src/sentencepiece_model.proto).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace instruct::tokenizers {

struct SentencePieceModel {
  enum class Kind : std::uint8_t { kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6 };
  enum class Trainer : std::uint8_t { kUnigram = 1, kBytePair = 2, kWord = 3, kCharacter = 4 };
  struct Piece {
    std::string text;
    float score = 0;
    Kind kind = Kind::kNormal;
  };
  std::vector<Piece> pieces;  // by id
  Trainer trainer = Trainer::kUnigram;
  std::string charsmap;  // see charsmap.h; may be empty
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
};

// Raises BadData naming `origin` and the byte of what is no such file.
SentencePieceModel read_sentence_piece(std::string_view bytes, const std::string& origin);

}  // namespace instruct::tokenizers
