// From the YAML tree of an instruction-set file to an InstructionSet. Internal to this folder.
#pragma once

#include "instructions/field_reader.h"
#include "instructions/instruction_set.h"

namespace instruct::instructions {

// Reads what can be read; every problem goes to `fields`. The set is fit for use only when there were none.
InstructionSet read_instruction_set(const Value& root, const std::string& origin, FieldReader& fields);

// The part under `output:` of one verb, whose inputs are known.
OutputSpec read_output_spec(const Value& body, const Instruction& instruction, const InstructionSet& set,
                            FieldReader& fields);

}  // namespace instruct::instructions
