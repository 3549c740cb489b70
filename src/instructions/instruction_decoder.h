// Instruction decoder: a call (verb and values) to what the model is told: system text, few-shot turns, question.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"

namespace instruct::instructions {

struct CallOptions {
  std::size_t template_index = 0;
  std::int64_t shots = 0;  // how many of the set's examples of this verb come first
};

// Messages up to the question. Few-shot turns use the same template. Raises BadData as check_inputs and for a template
// that fails, and InvalidArgument when there is no such template or more shots are asked for than the set has.
std::vector<Message> decode_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                 const CallOptions& options);

// The question alone, as the template words it; with origins: 0 the template's own text, 1 values'.
templates::Rendered rendered_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                  std::size_t template_index);
std::string render_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                        std::size_t template_index);

// Template to use for a row in an epoch: drawn from (seed, epoch, row) when there are several, so that every epoch
// words a row anew and no order of work changes it.
std::size_t choose_template(const Instruction& instruction, std::uint64_t seed, std::int64_t epoch, std::int64_t row);

}  // namespace instruct::instructions
