#include "evaluate/program.h"

namespace instruct::evaluate {

ProgramResult run_plan(generate::Generator& generator, const instructions::DialogueEncoder& dialogue,
                       const instructions::InstructionSet& set, const instructions::Plan& plan,
                       const ProgramOptions& options, const std::function<void(std::int64_t)>& on_done) {
  ProgramResult result;
  result.outputs.resize(plan.calls.size());
  result.texts.resize(plan.calls.size());
  std::int64_t done = 0;
  for (const std::vector<std::size_t>& wave : instructions::waves(plan)) {
    std::vector<generate::Request> requests;
    for (const std::size_t index : wave) {
      const instructions::PlannedCall& call = plan.calls[index];
      const instructions::Instruction& instruction = set.instruction(call.verb);
      const Value variables = instructions::resolve_variables(call, set, result.outputs);
      requests.push_back({.prompt = dialogue.encode_prompt(
                              instructions::decode_call(set, instruction, variables, {.shots = options.shots})),
                          .max_new_tokens = instruction.output.max_tokens,
                          .sampling = options.sampling});
    }
    const std::vector<generate::Answer> answers = generator.run(requests);
    for (std::size_t i = 0; i < wave.size(); ++i) {
      result.texts[wave[i]] = answers[i].text;
      result.outputs[wave[i]] = instructions::decode_output(set.instruction(plan.calls[wave[i]].verb), answers[i].text);
    }
    done += static_cast<std::int64_t>(wave.size());
    if (on_done) on_done(done);
  }
  return result;
}

}  // namespace instruct::evaluate
