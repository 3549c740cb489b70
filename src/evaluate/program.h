// Running a program of an instruction set over a document: waves of calls that do not depend on each other.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "generate/generator.h"
#include "instructions/adaptation.h"
#include "instructions/plan.h"

namespace instruct::evaluate {

struct ProgramOptions {
  std::int64_t shots = 0;
  std::uint64_t seed = 42;
  generate::SamplingOptions sampling;
};

struct ProgramResult {
  std::vector<Value> outputs;      // by index of the plan's calls
  std::vector<std::string> texts;  // as generated
};

// Calls of one wave are generated together: what their prompts share is computed once. Raises as decode_output when an
// answer is not of its verb's type.
ProgramResult run_plan(generate::Generator& generator, const instructions::DialogueEncoder& dialogue,
                       const instructions::InstructionSet& set, const instructions::Plan& plan,
                       const ProgramOptions& options, const std::function<void(std::int64_t)>& on_done = {});

}  // namespace instruct::evaluate
