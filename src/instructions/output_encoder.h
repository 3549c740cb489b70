// Output encoder: typed outputs to the text that is trained, and generated text back to typed values.
//
// type    value                       text
// text    text                        as it is
// span    text, or {text, start}      as it is; a part of the input
// sentences  text                     as it is: what an encoder chooses, a decoder words
// label   text of the set             the label
// number  number                      digits, no exponent, at most 12 before and 6 behind the point
// labels  list of labels              JSON array in the set's order
// list    list of texts               JSON array
// json    any that fits the schema    JSON in one line
//
// Texts that are extracted (extraction.h) may be given with their places too: {text, start}.
#pragma once

#include <string>
#include <string_view>

#include "instructions/instruction_set.h"

namespace instruct::instructions {

// Bounds of number outputs, shared with constrained decoding.
inline constexpr int kMaxIntegerDigits = 12;
inline constexpr int kMaxDecimals = 6;

// The canonical text of a value, what training aims at. Rows may give structured values or, as CSV does, their text.
// Raises BadData naming the verb and what was expected: a label not in the set (with the nearest), a number out of
// range, a span that is not in the text (checked when `variables` is given), JSON that does not fit the schema.
std::string encode_output(const Instruction& instruction, const Value& output, const Value* variables = nullptr);

// The typed value of a generated text, spaces at its ends left out. Labels match in any case, with or without quotes or
// a full stop around them, as models write them. Raises BadData when the text is no such value.
Value decode_output(const Instruction& instruction, std::string_view text);

// A value as a person reads it: texts as they are, lists and JSON as JSON.
std::string output_text(const Value& value);

}  // namespace instruct::instructions
