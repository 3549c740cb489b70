#include "instructions/input_decoder.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"

namespace instruct::instructions {
namespace {

bool fits(const Variable& variable, const Value& value) {
  switch (variable.type) {
    case VariableType::kText:
      return value.is_string();
    case VariableType::kNumber:
      return value.is_number();
    case VariableType::kList:
      return value.is_array();
    case VariableType::kLabel:
      return value.is_string() || value.is_integer();
    case VariableType::kJson:
      return true;
  }
  return false;
}

void check_value(const Instruction& instruction, const Variable& variable, const Value& value) {
  if (!fits(variable, value)) {
    raise(ErrorCategory::kBadData, "verb '{}': variable '{}' expects {}, got {}", instruction.verb, variable.name,
          type_name(variable.type), kind_name(value.kind()));
  }
  if (value.is_string()) {
    if (const auto bad = find_invalid_utf8(value.as_string())) {
      raise(ErrorCategory::kBadData, "verb '{}': variable '{}' has invalid UTF-8 at byte {}", instruction.verb,
            variable.name, *bad);
    }
  }
  if (variable.type != VariableType::kLabel || variable.labels.empty()) return;
  const std::string label = input_text(value);
  if (std::find(variable.labels.begin(), variable.labels.end(), label) == variable.labels.end()) {
    raise(ErrorCategory::kBadData, "verb '{}': '{}' is not a label of variable '{}'{}", instruction.verb, label,
          variable.name, did_you_mean(label, variable.labels));
  }
}

bool is_given(const Value& variables, const std::string& name) {
  const Value* value = variables.find(name);
  return value != nullptr && !value->is_null();
}

void check_slips(const Instruction& instruction, const Value& variables) {
  if (!variables.is_object()) return;
  std::vector<std::string> open;
  for (const std::string& input : instruction.inputs) {
    if (!is_given(variables, input)) open.push_back(input);
  }
  for (const auto& [name, value] : variables.as_object()) {
    if (std::find(instruction.inputs.begin(), instruction.inputs.end(), name) != instruction.inputs.end()) continue;
    if (const auto meant = nearest_name(name, open)) {
      raise(ErrorCategory::kBadData, "verb '{}': unknown variable '{}'; did you mean '{}'?", instruction.verb, name,
            *meant);
    }
  }
}

}  // namespace

std::string input_text(const Value& value) {
  if (value.is_string()) return value.as_string();
  return value.is_null() ? std::string() : dump_json(value);
}

void check_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables) {
  check_slips(instruction, variables);
  for (const std::string& input : instruction.inputs) {
    const Variable* variable = set.find_variable(input);
    INSTRUCT_CHECK(variable != nullptr);
    if (is_given(variables, input)) {
      check_value(instruction, *variable, variables.at(input));
    } else if (!variable->optional) {
      raise(ErrorCategory::kBadData, "verb '{}': variable '{}' is missing", instruction.verb, input);
    }
  }
}

templates::Data decode_inputs(const InstructionSet& set, const Instruction& instruction, const Value& variables) {
  check_inputs(set, instruction, variables);
  templates::Data data = templates::Data::object();
  for (const std::string& input : instruction.inputs) {
    const Value* value = variables.find(input);
    if (value == nullptr || value->is_null()) {
      data.set(input, templates::Data::from_value(Value("")));
      continue;
    }
    const VariableType type = set.find_variable(input)->type;
    const bool as_it_is = type == VariableType::kList || type == VariableType::kNumber;
    data.set(input, templates::Data::from_value(as_it_is ? *value : Value(input_text(*value)), 1));
  }
  return data;
}

}  // namespace instruct::instructions
