// The adaptation layer: variable values to text (input decoder), verb and template to a dialogue (instruction decoder),
// typed outputs to target text and back (output encoder).
#pragma once

#include <string>
#include <vector>

#include "base/random.h"
#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"

namespace instruct::instructions {

// Input decoder: checks the values of a call against the declared variables. Raises BadData naming verb and variable for
// a missing, unknown or mistyped value.
void check_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables);

// Instruction decoder: what a call says to the model.
struct CallOptions {
  std::size_t template_index = 0;
  std::int64_t shots = 0;  // how many of the set's examples of this verb come first
};
// Messages up to the question: system, few-shot turns, user. Raises as check_inputs, and InvalidArgument when more shots
// are asked for than the set has.
std::vector<Message> decode_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                 const CallOptions& options);
// Template to use for a row in an epoch: sampled when there are several.
std::size_t choose_template(const Instruction& instruction, std::uint64_t seed, std::int64_t epoch, std::int64_t row);

// Output encoder: the text trained for a typed value. Raises BadData naming what was expected (label not in the set,
// number out of range, span not in the text, JSON that does not fit the schema).
std::string encode_output(const Instruction& instruction, const Value& output);
// And back: the typed value of a generated text. Raises BadData when the text is no such value.
Value decode_output(const Instruction& instruction, std::string_view text);

}  // namespace instruct::instructions
