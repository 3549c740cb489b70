// Runs the program of an instruction set over a document, and shows how sure the model is of each label.
//   triage MODEL INSTRUCTIONS.iset.yaml DOCUMENT
#include <fmt/core.h>

#include <cstdio>

#include "base/error.h"
#include "base/file.h"
#include "evaluate/program.h"
#include "evaluate/responder.h"
#include "instructions/dialogue.h"
#include "instructions/instruction_set.h"
#include "instructions/output_encoder.h"
#include "instructions/plan.h"
#include "instructions/program_check.h"
#include "models/package.h"
#include "ops/engine.h"

namespace {

using namespace instruct;  // NOLINT(google-build-using-namespace): a program of one file

void run(const char* model, const char* instructions, const char* document) {
  const instructions::InstructionSet set = instructions::load_instruction_set(instructions);
  const instructions::Program program = instructions::parse_checked_program(set.program, set, instructions);
  const Value variables = Value::object({{set.document_variable()->name, read_file(document)}});
  const instructions::Plan plan = instructions::make_plan(program, set, variables);

  ops::Engine engine;
  const models::Package package =
      models::open_package(model, models::PackageParts::kAll, {.dtype = ops::preferred_dtype()}, engine.allocator());
  const instructions::DialogueEncoder dialogue(*package.tokenizer, package.chat_template, model);
  evaluate::Responder responder(engine, *package.model, dialogue);

  const evaluate::ProgramResult result = evaluate::run_plan(responder, dialogue, set, plan, {});
  for (const std::size_t call : plan.outputs) {
    fmt::print("{} = {}\n", plan.calls[call].source, instructions::output_text(result.outputs[call]));
    const auto& labels = set.instruction(plan.calls[call].verb).output.labels;
    for (std::size_t i = 0; i < result.replies[call].label_probabilities.size(); ++i)
      fmt::print("  {:<10} {:.3f}\n", labels[i], result.replies[call].label_probabilities[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) {
    fmt::print(stderr, "usage: triage MODEL INSTRUCTIONS.iset.yaml DOCUMENT\n");
    return exit_code(ErrorCategory::kInvalidArgument);
  }
  try {
    run(argv[1], argv[2], argv[3]);
  } catch (const Error& error) {
    fmt::print(stderr, "triage: {}\n", error.what());
    return exit_code(error.category());
  }
  return 0;
}
