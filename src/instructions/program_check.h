// A program held against an instruction set: names, arguments and types.
#pragma once

#include <string>
#include <vector>

#include "instructions/instruction_set.h"
#include "instructions/program.h"

namespace instruct::instructions {

struct ProgramProblem {
  Mark mark;  // within the program
  std::string message;
};

// An argument and the input it goes to.
struct BoundArgument {
  const Variable* variable = nullptr;
  const Argument* argument = nullptr;
};

// Arguments to inputs: those without a name in the order of the verb's inputs, the others by name. What does not fit
// (too many, unknown or repeated names, a nameless one behind a named one, a missing input that is not optional) goes
// to `problems`.
std::vector<BoundArgument> bind_arguments(const Call& call, const Instruction& instruction, const InstructionSet& set,
                                          std::vector<ProgramProblem>& problems);

// Everything wrong with a program, in its order: unknown verbs and variables with the nearest name, arguments that do
// not bind, types that do not fit, selectors that are none, and a "..." that cannot tell how to go on.
std::vector<ProgramProblem> check_program(const Program& program, const InstructionSet& set);

// Parses and checks; raises one BadData error that lists every problem as "ORIGIN: line L, column C: message".
Program parse_checked_program(std::string_view source, const InstructionSet& set, std::string_view origin);

}  // namespace instruct::instructions
