// Changing text before it is cut and encoded, without losing where it came from.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "tokenizers/pattern.h"
#include "tokenizers/spec.h"

namespace instruct::tokenizers {

// A stretch of a text, perhaps changed; knows for each of its bytes which bytes of the text it stands for. A stretch
// that is still as it was is only a view.
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

 private:
  struct Origin {
    std::uint32_t begin, end;
  };
  Origin origin_of(std::size_t at) const;

  std::string_view source_;
  std::size_t offset_;
  bool changed_ = false;
  std::string text_;
  std::vector<Origin> origins_;  // by byte of text_
};

// Replaces every maximal invalid part of UTF-8 by U+FFFD.
void repair(AlignedText& text);

class Normaliser {
 public:
  // Raises as Pattern does.
  explicit Normaliser(const std::vector<NormaliserStep>& steps);
  bool empty() const { return steps_.empty(); }
  // Applies the steps, in order, to valid UTF-8.
  void apply(AlignedText& text) const;

 private:
  struct Step {
    NormaliserStep step;
    std::string literal;             // kReplace of a fixed text
    std::optional<Pattern> pattern;  // kReplace of any other
  };
  std::vector<Step> steps_;
};

}  // namespace instruct::tokenizers
