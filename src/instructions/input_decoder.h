// Input decoder: the values of a call's variables, checked and made ready for a template.
//
// Texts go in as they are, labels too; numbers print in their shortest form; lists stay lists, so that templates can
// loop over them; JSON values print as JSON text. An optional variable without a value is an empty text.
#pragma once

#include "instructions/instruction_set.h"
#include "templates/data.h"

namespace instruct::instructions {

// Raises BadData naming verb and variable for a missing or mistyped value, a label outside its set, text that is not
// UTF-8, and a name that looks like a slip of an input that has no value. Other further fields are left alone.
void check_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables);

// Template variables of a call. All text in them counts as the user's: source 1. Checks as above.
templates::Data decode_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables);

// What one value looks like in a prompt.
std::string input_text(const Value& value);

}  // namespace instruct::instructions
