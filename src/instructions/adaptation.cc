#include "instructions/adaptation.h"

#include <algorithm>
#include <charconv>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

// A user's value as the text a template prints.
Value printable(const Value& value) {
  if (value.is_array() || value.is_object()) return Value(dump_json(value));
  return value;
}

bool fits(VariableType type, const Value& value) {
  switch (type) {
    case VariableType::kText:
    case VariableType::kLabel: return value.is_string();
    case VariableType::kNumber: return value.is_number();
    case VariableType::kList: return value.is_array();
    case VariableType::kJson: return true;
  }
  return false;
}

std::string render_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                        std::size_t template_index) {
  check_inputs(set, instruction, variables);
  templates::Data data = templates::Data::object();
  for (const std::string& input : instruction.inputs) {
    const Value* value = variables.find(input);
    if (value == nullptr || value->is_null()) {
      data.set(input, templates::Data::from_value(Value("")));
    } else {
      const Variable* declared = set.find_variable(input);
      const bool keep = declared->type == VariableType::kList;
      data.set(input, templates::Data::from_value(keep ? *value : printable(*value), 1));
    }
  }
  INSTRUCT_CHECK(template_index < instruction.templates.size());
  return instruction.templates[template_index].render(data, {.strict_undefined = true}).text;
}

double number_of(const Instruction& instruction, const Value& value) {
  double number = 0;
  if (value.is_number()) {
    number = value.as_double();
  } else {
    const std::string_view text = value.is_string() ? trim(value.as_string()) : std::string_view();
    const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (text.empty() || status != std::errc() || end != text.data() + text.size()) {
      raise(ErrorCategory::kBadData, "verb '{}': expected a number, got '{}'", instruction.verb, text);
    }
  }
  const OutputSpec& output = instruction.output;
  if ((output.minimum && number < *output.minimum) || (output.maximum && number > *output.maximum)) {
    raise(ErrorCategory::kBadData, "verb '{}': {} is outside the range of the output", instruction.verb, number);
  }
  return number;
}

const std::string& label_of(const Instruction& instruction, std::string_view text) {
  const auto& labels = instruction.output.labels;
  const auto found = std::find(labels.begin(), labels.end(), trim(text));
  if (found == labels.end()) {
    raise(ErrorCategory::kBadData, "verb '{}': label '{}' is not in the set{}", instruction.verb, text, did_you_mean(text, labels));
  }
  return *found;
}

std::string text_of(const Instruction& instruction, const Value& value) {
  if (!value.is_string()) {
    raise(ErrorCategory::kBadData, "verb '{}': output expects text, got {}", instruction.verb, kind_name(value.kind()));
  }
  return value.as_string();
}

const Value::Array& list_of(const Instruction& instruction, const Value& value) {
  if (!value.is_array()) {
    raise(ErrorCategory::kBadData, "verb '{}': output expects a list, got {}", instruction.verb, kind_name(value.kind()));
  }
  return value.as_array();
}

}  // namespace

void check_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables) {
  for (const std::string& input : instruction.inputs) {
    const Variable* declared = set.find_variable(input);
    const Value* value = variables.find(input);
    if (value == nullptr || value->is_null()) {
      if (declared->optional) continue;
      raise(ErrorCategory::kBadData, "verb '{}': variable '{}' is missing", instruction.verb, input);
    }
    if (!fits(declared->type, *value)) {
      raise(ErrorCategory::kBadData, "verb '{}': variable '{}' expects {}, got {}", instruction.verb, input,
            type_name(declared->type), kind_name(value->kind()));
    }
  }
}

std::vector<Message> decode_call(const InstructionSet& set, const Instruction& instruction, const Value& variables,
                                 const CallOptions& options) {
  std::vector<Message> messages;
  if (!set.system.empty()) messages.push_back({"system", set.system, {}});
  const auto found = set.examples.find(instruction.verb);
  const auto available = found == set.examples.end() ? 0 : static_cast<std::int64_t>(found->second.size());
  if (options.shots > available) {
    raise(ErrorCategory::kInvalidArgument, "{} shots asked for, '{}' has {} examples in {}", options.shots, instruction.verb,
          available, set.origin);
  }
  for (std::int64_t i = 0; i < options.shots; ++i) {
    const Shot& shot = found->second[static_cast<std::size_t>(i)];
    messages.push_back({"user", render_call(set, instruction, shot.variables, options.template_index), {}});
    messages.push_back({"assistant", encode_output(instruction, shot.output), {}});
  }
  messages.push_back({"user", render_call(set, instruction, variables, options.template_index), {}});
  return messages;
}

std::size_t choose_template(const Instruction& instruction, std::uint64_t seed, std::int64_t epoch, std::int64_t row) {
  if (instruction.templates.size() < 2) return 0;
  RandomStream random(seed, RandomPurpose::kTemplate, static_cast<std::uint64_t>(epoch) << 40 | static_cast<std::uint64_t>(row));
  return random.next_below(instruction.templates.size());
}

std::string encode_output(const Instruction& instruction, const Value& output) {
  switch (instruction.output.type) {
    case OutputType::kText:
    case OutputType::kSpan:
      return text_of(instruction, output);
    case OutputType::kLabel:
      return label_of(instruction, text_of(instruction, output));
    case OutputType::kNumber: {
      const double number = number_of(instruction, output);
      if (output.is_string()) return std::string(trim(output.as_string()));
      return output.is_integer() ? fmt::format("{}", output.as_integer()) : fmt::format("{}", number);
    }
    case OutputType::kLabels:
      for (const Value& item : list_of(instruction, output)) label_of(instruction, text_of(instruction, item));
      return dump_json(output);
    case OutputType::kList:
      list_of(instruction, output);
      return dump_json(output);
    case OutputType::kJson:
      return output.is_string() ? dump_json(parse_json(output.as_string(), "output of '" + instruction.verb + "'")) : dump_json(output);
  }
  raise(ErrorCategory::kInternal, "unknown output type");
}

Value decode_output(const Instruction& instruction, std::string_view text) {
  const std::string origin = "output of '" + instruction.verb + "'";
  switch (instruction.output.type) {
    case OutputType::kText:
    case OutputType::kSpan:
      return Value(trim(text));
    case OutputType::kLabel:
      return Value(label_of(instruction, text));
    case OutputType::kNumber: {
      const double number = number_of(instruction, Value(text));
      const auto whole = static_cast<std::int64_t>(number);
      return static_cast<double>(whole) == number ? Value(whole) : Value(number);
    }
    case OutputType::kLabels: {
      Value list = parse_json(text, origin);
      for (const Value& item : list_of(instruction, list)) label_of(instruction, text_of(instruction, item));
      return list;
    }
    case OutputType::kList: {
      Value list = parse_json(text, origin);
      list_of(instruction, list);
      return list;
    }
    case OutputType::kJson:
      return parse_json(text, origin);
  }
  raise(ErrorCategory::kInternal, "unknown output type");
}

}  // namespace instruct::instructions
