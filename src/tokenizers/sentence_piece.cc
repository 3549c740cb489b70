// The wire format of protocol buffers: a message is a row of fields, each a varint (field number times 8 plus kind)
// and a value: a varint (kind 0), eight bytes (1), a varint length and so many bytes (2), or four bytes (5). Unknown
// fields are skipped.
#include "tokenizers/sentence_piece.h"

#include <bit>
#include <optional>

#include "base/error.h"
#include "base/text.h"

namespace instruct::tokenizers {
namespace {

class Message {
 public:
  Message(std::string_view bytes, std::size_t place, const std::string& origin)
      : bytes_(bytes), place_(place), origin_(origin) {}

  struct Field {
    std::uint64_t number = 0;
    std::uint64_t integer = 0;  // kinds 0 and 5
    std::string_view bytes;     // kind 2
    std::size_t place = 0;      // of `bytes` in the file
  };
  std::optional<Field> next() {
    if (at_ == bytes_.size()) return std::nullopt;
    const std::uint64_t key = varint();
    Field field;
    field.number = key >> 3;
    switch (key & 7) {
      case 0:
        field.integer = varint();
        break;
      case 1:
        take(8);
        break;
      case 2: {
        const std::uint64_t size = varint();
        field.place = place_ + at_;
        field.bytes = take(size);
        break;
      }
      case 5:
        for (std::uint64_t i = 0; const char byte : take(4))
          field.integer |= static_cast<std::uint64_t>(static_cast<unsigned char>(byte)) << (8 * i++);
        break;
      default:
        fail("a field of an unknown kind");
    }
    return field;
  }
  [[noreturn]] void fail(const char* what) const {
    raise(ErrorCategory::kBadData, "{}: byte {}: {}; expected a SentencePiece model", origin_, place_ + at_, what);
  }

 private:
  std::uint64_t varint() {
    std::uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      if (at_ == bytes_.size()) fail("a number is cut off");
      const auto byte = static_cast<unsigned char>(bytes_[at_++]);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return value;
    }
    fail("a number of more than 64 bits");
  }
  std::string_view take(std::uint64_t size) {
    if (size > bytes_.size() - at_) fail("a field longer than what is left");
    const std::string_view part = bytes_.substr(at_, static_cast<std::size_t>(size));
    at_ += part.size();
    return part;
  }

  std::string_view bytes_;
  std::size_t place_;  // of bytes_ in the file
  const std::string& origin_;
  std::size_t at_ = 0;
};

SentencePieceModel::Piece read_piece(Message message) {
  SentencePieceModel::Piece piece;
  while (const auto field = message.next()) {
    if (field->number == 1) {
      piece.text = repair_utf8(field->bytes);
    } else if (field->number == 2) {
      piece.score = std::bit_cast<float>(static_cast<std::uint32_t>(field->integer));
    } else if (field->number == 3) {
      if (field->integer < 1 || field->integer > 6) message.fail("a piece of an unknown type");
      piece.kind = static_cast<SentencePieceModel::Kind>(field->integer);
    }
  }
  return piece;
}

void read_trainer(Message message, SentencePieceModel& model) {
  while (const auto field = message.next()) {
    if (field->number != 3) continue;
    if (field->integer < 1 || field->integer > 4) message.fail("an unknown model type");
    model.trainer = static_cast<SentencePieceModel::Trainer>(field->integer);
  }
}

void read_normaliser(Message message, SentencePieceModel& model) {
  while (const auto field = message.next()) {
    if (field->number == 2) model.charsmap = field->bytes;
    if (field->number == 3) model.add_dummy_prefix = field->integer != 0;
    if (field->number == 4) model.remove_extra_whitespaces = field->integer != 0;
    if (field->number == 5) model.escape_whitespaces = field->integer != 0;
  }
}

}  // namespace

SentencePieceModel read_sentence_piece(std::string_view bytes, const std::string& origin) {
  SentencePieceModel model;
  Message message(bytes, 0, origin);
  while (const auto field = message.next()) {
    const Message inner(field->bytes, field->place, origin);
    if (field->number == 1) model.pieces.push_back(read_piece(inner));
    if (field->number == 2) read_trainer(inner, model);
    if (field->number == 3) read_normaliser(inner, model);
  }
  if (model.pieces.empty()) message.fail("no piece");
  return model;
}

}  // namespace instruct::tokenizers
