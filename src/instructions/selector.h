// Selectors: which part of a document a call reads, in words a reader of programs understands.
//
//   '1st paragraph'  'second sentence'  'paragraph 3'  'last line'  'second last paragraph'  'paragraphs 2-4'
//   'sentences 3-last'  'first 3 sentences'  'last 2 paragraphs'  'words 1-50'  'every sentence'  'document'
//   '第1段'  '第二句'  '最后一段'  '倒数第二段'  '第2-4段'  '前三句'  '后两段'  '每一段'  '每句'  '全文'
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "instructions/segmentation.h"

namespace instruct::instructions {

// A place among units: `number` counts from 1, from the start or from the end of the document.
struct Ordinal {
  std::int64_t number = 1;
  bool from_end = false;
  friend bool operator==(const Ordinal&, const Ordinal&) = default;
};

struct Selector {
  TextUnit unit = TextUnit::kDocument;
  bool every = false;  // one part per unit; first and last mean nothing then
  Ordinal first;
  Ordinal last;
  friend bool operator==(const Selector&, const Selector&) = default;
};

// Reads a selector. Raises BadData naming what is wrong with it and the nearest unit, or the forms there are.
Selector parse_selector(std::string_view text);

// A canonical English form: '3rd paragraph', 'paragraphs 2-4', 'every sentence', 'document'. Parsing it gives the same.
std::string print_selector(const Selector& selector);

// The units of one document, cut once per unit and kept. Not for use from several threads at once.
class SegmentedText {
 public:
  explicit SegmentedText(std::string text);

  const std::string& text() const { return text_; }
  const std::vector<ByteRange>& units(TextUnit unit);

  // What a selector selects: one range, or for `every` one per unit. Raises NotFound when it lies past the end of the
  // document, naming how many units there are, and for an empty document.
  std::vector<ByteRange> select(const Selector& selector);
  // The same for a selector without `every`, with nullopt when its first unit lies past the end; a range that starts
  // inside and ends past the end is cut. This is how "..." walks to the end of a document.
  std::optional<ByteRange> select_within(const Selector& selector);

 private:
  std::string text_;
  std::vector<std::vector<ByteRange>> units_;
  std::vector<bool> known_;
};

}  // namespace instruct::instructions
