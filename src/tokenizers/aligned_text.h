// A text that is changed step by step without losing where it came from.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// A stretch of a text, perhaps changed; knows for each of its bytes which bytes of the text it stands for. A stretch
// that is still as it was is only a view, and one whose bytes were only exchanged one for one keeps no table.
class AlignedText {
 public:
  // `source` is at byte `offset` of the text and must stay where it is.
  AlignedText(std::string_view source, std::size_t offset) : source_(source), offset_(offset) {}

  std::string_view view() const { return changed_ ? std::string_view(text_) : source_; }
  // The bytes of the text that bytes [begin, end) of view() stand for; an empty range is a place.
  TextRange origin(std::size_t begin, std::size_t end) const;
  // Bytes [begin, end) of view() as a stretch of their own. A view of this one when that is unchanged.
  AlignedText part(std::size_t begin, std::size_t end) const;

  struct Edit {
    std::size_t begin, end;  // of view()
    std::string text;
  };
  // Replaces ranges, which are in order and do not overlap. An inserted text (empty range) stands for the byte
  // behind it, so that a token of it alone belongs to what it was put in front of.
  void apply(const std::vector<Edit>& edits);

  class Writer;

 private:
  struct Origin {
    std::uint32_t begin, end;
  };
  Origin origin_of(std::size_t at) const;

  std::string_view source_;
  std::size_t offset_;
  bool changed_ = false;
  std::string text_;
  bool moved_ = false;           // whether bytes stand for others than those at their own place
  std::vector<Origin> origins_;  // by byte of text_, when they do
};

// Goes once over a text and writes the next one. Nothing changes when nothing is replaced.
class AlignedText::Writer {
 public:
  explicit Writer(AlignedText& text) : text_(text), old_(text.view()) {}
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Bytes [done, begin) of the old text stay, [begin, end) become `put`; what an empty range gets stands for the byte
  // behind it.
  void replace(std::size_t begin, std::size_t end, std::string_view put);
  // Takes over what was written.
  void finish();

 private:
  void keep(std::size_t end);
  void note_places();

  AlignedText& text_;
  std::string_view old_;
  std::size_t done_ = 0;
  bool changed_ = false;
  bool moved_ = false;
  std::string written_;
  std::vector<Origin> origins_;
};

}  // namespace instruct::tokenizers
