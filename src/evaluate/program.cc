#include "evaluate/program.h"

#include <algorithm>

namespace instruct::evaluate {

ProgramResult run_plan(Responder& responder, const instructions::DialogueEncoder& dialogue,
                       const instructions::InstructionSet& set, const instructions::Plan& plan,
                       const ProgramOptions& options, const std::function<void(std::int64_t)>& on_done) {
  ProgramResult result;
  result.outputs.resize(plan.calls.size());
  result.replies.resize(plan.calls.size());
  std::int64_t done = 0;
  for (const std::vector<std::size_t>& wave : instructions::waves(plan)) {
    std::vector<Question> questions;
    for (const std::size_t index : wave) {
      const instructions::PlannedCall& call = plan.calls[index];
      Question question{.instruction = &set.instruction(call.verb),
                        .variables = instructions::resolve_variables(call, set, result.outputs)};
      // A verb need not have as many examples as were asked for.
      const auto examples = set.examples.find(call.verb);
      const auto known = examples == set.examples.end() ? 0 : static_cast<std::int64_t>(examples->second.size());
      question.messages = instructions::decode_call(set, *question.instruction, question.variables,
                                                    {.shots = std::min(options.shots, known)});
      question.prompt = dialogue.encode_prompt(question.messages);
      question.max_new_tokens =
          options.max_new_tokens > 0 ? options.max_new_tokens : question.instruction->output.max_tokens;
      question.stream = index;
      questions.push_back(std::move(question));
    }
    std::vector<Reply> replies = responder.reply(questions, [&](std::int64_t count) {
      if (on_done) on_done(done + count);
    });
    for (std::size_t i = 0; i < wave.size(); ++i) {
      result.outputs[wave[i]] = instructions::decode_output(*questions[i].instruction, replies[i].text);
      result.replies[wave[i]] = std::move(replies[i]);
    }
    done += static_cast<std::int64_t>(wave.size());
  }
  return result;
}

std::string result_text(const instructions::Plan& plan, const instructions::InstructionSet& set,
                        instructions::Combine combine, const ProgramResult& result) {
  std::vector<Value> details(plan.calls.size());
  for (std::size_t i = 0; i < plan.calls.size(); ++i) {
    const std::vector<double>& probabilities = result.replies[i].label_probabilities;
    if (probabilities.empty()) continue;
    Value labels = Value::object();
    for (std::size_t l = 0; l < probabilities.size(); ++l)
      labels.set(set.instruction(plan.calls[i].verb).output.labels[l], probabilities[l]);
    details[i] = Value::object({{"probabilities", labels}});
  }
  return instructions::combine_outputs(plan, combine, result.outputs, details);
}

}  // namespace instruct::evaluate
