// Running a program of an instruction set over a document: waves of calls that do not depend on each other.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "evaluate/responder.h"
#include "instructions/adaptation.h"
#include "instructions/plan.h"

namespace instruct::evaluate {

struct ProgramOptions {
  std::int64_t shots = 0;
  std::int64_t max_new_tokens = 0;  // 0: those of each verb
};

struct ProgramResult {
  std::vector<Value> outputs;  // by index of the plan's calls
  std::vector<Reply> replies;
};

// Calls of one wave are answered together: what their prompts share is computed once. Raises as decode_output when an
// answer is not of its verb's type.
ProgramResult run_plan(Responder& responder, const instructions::DialogueEncoder& dialogue,
                       const instructions::InstructionSet& set, const instructions::Plan& plan,
                       const ProgramOptions& options, const std::function<void(std::int64_t)>& on_done = {});

// The result of a program: as combine_outputs, where kJson has for labels also the probabilities of all of them.
std::string result_text(const instructions::Plan& plan, const instructions::InstructionSet& set,
                        instructions::Combine combine, const ProgramResult& result);

}  // namespace instruct::evaluate
