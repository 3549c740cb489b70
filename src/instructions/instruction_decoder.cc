#include "instructions/instruction_decoder.h"

#include "base/error.h"
#include "base/random.h"
#include "instructions/input_decoder.h"
#include "instructions/output_encoder.h"

namespace instruct::instructions {

templates::Rendered rendered_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                  std::size_t template_index) {
  if (template_index >= instruction.templates.size()) {
    raise(ErrorCategory::kInvalidArgument, "verb '{}': template {} asked for, it has {} (counted from 0)",
          instruction.verb, template_index, instruction.templates.size());
  }
  const templates::Data data = decode_inputs(set, instruction, variables);
  return instruction.templates[template_index].render(data, {.strict_undefined = true});
}

std::string render_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                        std::size_t template_index) {
  return rendered_call(set, instruction, variables, template_index).text;
}

std::vector<Message> decode_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                 const CallOptions& options) {
  std::vector<Message> messages;
  if (!set.system.empty()) messages.push_back({"system", set.system, {}});
  const auto found = set.examples.find(instruction.verb);
  const auto available = found == set.examples.end() ? 0 : static_cast<std::int64_t>(found->second.size());
  if (options.shots < 0 || options.shots > available) {
    raise(ErrorCategory::kInvalidArgument, "{} shots asked for, verb '{}' has {} examples in {}", options.shots,
          instruction.verb, available, set.origin);
  }
  for (std::int64_t i = 0; i < options.shots; ++i) {
    const Shot& shot = found->second[static_cast<std::size_t>(i)];
    messages.push_back({"user", render_call(set, instruction, shot.variables, options.template_index), {}});
    messages.push_back({"assistant", encode_output(instruction, shot.output, &shot.variables), {}});
  }
  messages.push_back({"user", render_call(set, instruction, variables, options.template_index), {}});
  return messages;
}

std::size_t choose_template(const Instruction& instruction, std::uint64_t seed, std::int64_t epoch, std::int64_t row) {
  if (instruction.templates.size() < 2) return 0;
  constexpr int kRowBits = 40;
  const auto step = static_cast<std::uint64_t>(epoch) << kRowBits | static_cast<std::uint64_t>(row);
  RandomStream random(seed, RandomPurpose::kTemplate, step);
  return random.next_below(instruction.templates.size());
}

}  // namespace instruct::instructions
