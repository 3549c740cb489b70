#include "instructions/describe.h"

#include <fmt/core.h>

#include <algorithm>

#include "base/json.h"
#include "instructions/adaptation.h"

namespace instruct::instructions {
namespace {

constexpr std::size_t kShownLabels = 8;

std::string join(const std::vector<std::string>& items, std::size_t shown) {
  std::string text;
  for (std::size_t i = 0; i < std::min(items.size(), shown); ++i) text += (i > 0 ? ", " : "") + items[i];
  return items.size() > shown ? fmt::format("{}, ... ({} in all)", text, items.size()) : text;
}

std::string bounds(const OutputSpec& output) {
  std::string text;
  if (output.minimum) text += fmt::format(", from {}", *output.minimum);
  if (output.maximum) text += fmt::format(", up to {}", *output.maximum);
  if (output.integer) text += ", whole";
  if (output.min_items > 0) text += fmt::format(", at least {} items", output.min_items);
  if (output.max_items < SchemaNode::kUnbounded) text += fmt::format(", at most {} items", output.max_items);
  return text;
}

std::string output_line(const OutputSpec& output) {
  std::string text(type_name(output.type));
  if (!output.labels.empty()) text += fmt::format(" ({})", join(output.labels, kShownLabels));
  if (output.type == OutputType::kSpan || output.type == OutputType::kSentences)
    text += fmt::format(" of {}", output.from);
  if (output.type == OutputType::kJson && !output.schema.is_null()) text += " " + dump_json(output.schema);
  return text + bounds(output) + fmt::format(", at most {} tokens", output.max_tokens);
}

std::string variable_lines(const InstructionSet& set) {
  std::string text = "\nvariables\n";
  std::size_t width = 0;
  for (const Variable& variable : set.variables) width = std::max(width, variable.name.size());
  for (const Variable& variable : set.variables) {
    std::string notes;
    if (variable.optional) notes += ", optional";
    if (!variable.labels.empty()) notes += fmt::format(" ({})", join(variable.labels, kShownLabels));
    if (&variable == set.document_variable()) notes += ", the document that selectors read";
    text += fmt::format("  {:<{}}  {}{}\n", variable.name, width, type_name(variable.type), notes);
  }
  return text;
}

std::string instruction_lines(const InstructionSet& set) {
  std::string text = "\ninstructions\n";
  for (const Instruction& instruction : set.instructions) {
    const auto examples = set.examples.find(instruction.verb);
    const std::size_t shots = examples == set.examples.end() ? 0 : examples->second.size();
    text += fmt::format("  {}({}) -> {}\n", instruction.verb, join(instruction.inputs, instruction.inputs.size()),
                        output_line(instruction.output));
    text += fmt::format(
        "    {} template{}, {} example{}{}\n", instruction.templates.size(),
        instruction.templates.size() == 1 ? "" : "s", shots, shots == 1 ? "" : "s",
        instruction.metrics.empty() ? "" : ", metrics " + join(instruction.metrics, instruction.metrics.size()));
  }
  return text;
}

// A value that stands for one when the set has no example.
Value placeholder(const Variable& variable) {
  switch (variable.type) {
    case VariableType::kText:
      return Value(fmt::format("({})", variable.name));
    case VariableType::kNumber:
      return Value(1);
    case VariableType::kLabel:
      return Value(variable.labels.empty() ? fmt::format("({})", variable.name) : variable.labels.front());
    case VariableType::kList:
      return Value(Value::Array{Value("a"), Value("b")});
    case VariableType::kJson:
      return Value::object();
  }
  return {};
}

// The dialogue of one training row: the set's first example, or made-up values for its first verb.
struct Sample {
  const Instruction* instruction = nullptr;
  std::vector<Message> messages;
  bool made_up = true;
};

Sample sample_of(const InstructionSet& set) {
  Sample sample{.instruction = &set.instructions.front()};
  const Shot* shot = nullptr;
  for (const Instruction& instruction : set.instructions) {
    const auto found = set.examples.find(instruction.verb);
    if (shot != nullptr || found == set.examples.end() || found->second.empty()) continue;
    sample.instruction = &instruction;
    shot = &found->second.front();
  }
  sample.made_up = shot == nullptr;
  Value variables = Value::object();
  if (shot != nullptr) {
    variables = shot->variables;
  } else {
    for (const std::string& input : sample.instruction->inputs)
      variables.set(input, placeholder(*set.find_variable(input)));
  }
  sample.messages = decode_call(set, *sample.instruction, variables, {});
  const OutputSpec& output = sample.instruction->output;
  std::string answer = "(" + std::string(type_name(output.type)) + ")";
  if (shot != nullptr)
    answer = encode_output(*sample.instruction, shot->output);
  else if (output.type == OutputType::kLabel)
    answer = output.labels.front();
  sample.messages.push_back({"assistant", answer, {}});
  return sample;
}

std::string message_lines(const std::vector<Message>& messages) {
  std::string text;
  for (const Message& message : messages) {
    const bool answer = message.role == "assistant";
    text += fmt::format("{}: {}{}{}\n", message.role, answer ? "«" : "", message.content, answer ? "»" : "");
  }
  return text;
}

}  // namespace

std::string show_trained(const EncodedDialogue& encoded) {
  std::string text;
  bool inside = false;
  std::int64_t trained = 0;
  std::size_t done = 0;
  for (std::size_t i = 0; i < encoded.tokens.size(); ++i) {
    const bool now = encoded.trained[i] != 0;
    trained += now ? 1 : 0;
    if (now)
      text += inside ? "|" : "«";
    else if (inside)
      text += "»";
    inside = now;
    // A token may end inside a character; what it holds of the text is shown all the same.
    text.append(encoded.text, done, encoded.ranges[i].end - done);
    done = encoded.ranges[i].end;
  }
  if (inside) text += "»";
  text += fmt::format("\n{} tokens, {} trained", encoded.tokens.size(), trained);
  if (!encoded.seams.empty()) text += fmt::format(", {} of them seams of prompt and answer", encoded.seams.size());
  if (!encoded.end_trained)
    text += "; the end of the answer is NOT trained: the template ends it with no end-of-turn token";
  return text + "\n";
}

std::string describe(const InstructionSet& set, const DialogueEncoder* encoder) {
  std::string text = fmt::format("{}{}{}\n", set.name.empty() ? "instruction set" : set.name,
                                 set.origin.empty() ? "" : "  ", set.origin);
  if (!set.system.empty()) text += fmt::format("system: {}\n", set.system);
  text += variable_lines(set);
  text += instruction_lines(set);
  if (!set.program.empty()) text += fmt::format("\nprogram  {}\ncombine  {}\n", set.program, combine_name(set.combine));
  const Sample sample = sample_of(set);
  text += fmt::format("\nas a row of training: {}{}\n", sample.instruction->verb,
                      sample.made_up ? " (with made-up values: the set has no examples)" : ", its first example");
  return text + (encoder == nullptr ? message_lines(sample.messages)
                                    : show_trained(encoder->encode_training(sample.messages, {.mask_history = true})));
}

}  // namespace instruct::instructions
