// Extraction: outputs that are made of parts of a text, as an encoder finds them.
//
// A list of texts is one field, JSON whose members are texts or lists of texts one for each member. Of every word of
// the text a tag says whether a part of a field begins there (B-field), goes on (I-field), or neither (O): Ramshaw and
// Marcus, "Text chunking using transformation-based learning", 1995.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "instructions/instruction_set.h"
#include "instructions/segmentation.h"

namespace instruct::instructions {

struct ExtractedField {
  std::string name;  // of the JSON's member; a list's is the verb
  bool list = false;
  std::int64_t most = 1;  // parts it may have
};

// Empty for an output that cannot be extracted.
std::vector<ExtractedField> extracted_fields(const Instruction& instruction);
// "O", and "B-" and "I-" of each field.
std::vector<std::string> extraction_tags(const Instruction& instruction);

// A part that a row names.
struct Mention {
  std::size_t field = 0;  // 0 for a span
  std::string text;
  bool placed = false;            // the row says where
  std::vector<ByteRange> places;  // there, else wherever the text has it; not empty
};

// What a row's output, {text, start} or text, names of `text`; `start` counts characters. A span is one mention. Raises
// BadData for a part that is empty, not in the text, or not at its start.
std::vector<Mention> mentions_of(const Instruction& instruction, const Value& output, std::string_view text);

// A part that was found.
struct FoundSpan {
  std::size_t field = 0;
  ByteRange bytes;
  double probability = 0;
};

// The output that parts, in the order of the text, come to: each text once, the likeliest ones where a field may have
// less.
Value extracted_value(const Instruction& instruction, std::vector<FoundSpan> found, std::string_view text);
// One object a part: text, start and end (in characters), probability, and the field unless it is a span's.
Value found_spans_value(const Instruction& instruction, const std::vector<FoundSpan>& found, std::string_view text);

// The output with texts in place of {text, start}, where it is one that is extracted.
Value without_places(const Instruction& instruction, const Value& output);

}  // namespace instruct::instructions
