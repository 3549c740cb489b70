#include "instructions/instruction_set.h"

#include <algorithm>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "base/yaml.h"
#include "instructions/instruction_set_reader.h"

namespace instruct::instructions {

bool Instruction::is_cloze() const {
  return output.type == OutputType::kLabel && !templates.empty() &&
         std::all_of(templates.begin(), templates.end(), [](const templates::Template& wording) {
           return wording.source().find(kMaskMark) != std::string::npos;
         });
}

const Variable* InstructionSet::find_variable(std::string_view wanted) const {
  for (const Variable& variable : variables) {
    if (variable.name == wanted) return &variable;
  }
  return nullptr;
}

const Variable* InstructionSet::document_variable() const {
  const Variable* optional = nullptr;
  for (const Variable& variable : variables) {
    if (variable.type != VariableType::kText) continue;
    if (!variable.optional) return &variable;
    if (optional == nullptr) optional = &variable;
  }
  return optional;
}

const Instruction* InstructionSet::find_instruction(std::string_view verb) const {
  for (const Instruction& candidate : instructions) {
    if (candidate.verb == verb) return &candidate;
  }
  return nullptr;
}

const Instruction& InstructionSet::instruction(std::string_view verb) const {
  if (const Instruction* found = find_instruction(verb)) return *found;
  std::vector<std::string> verbs;
  for (const Instruction& candidate : instructions) verbs.push_back(candidate.verb);
  raise(ErrorCategory::kInvalidArgument, "{}: unknown verb '{}'{}", origin, verb, did_you_mean(verb, verbs));
}

InstructionSet parse_instruction_set(std::string_view text, const std::string& origin) {
  const Value root = parse_yaml(text, origin);
  FieldReader fields(text, origin);
  InstructionSet set = read_instruction_set(root, origin, fields);
  if (fields.clean()) return set;
  std::string all;
  for (const std::string& problem : fields.problems()) all += (all.empty() ? "" : "\n") + problem;
  raise(ErrorCategory::kBadData, "{}", all);
}

std::vector<std::string> check_instruction_set(std::string_view text, const std::string& origin) {
  FieldReader fields(text, origin);
  try {
    read_instruction_set(parse_yaml(text, origin), origin, fields);
  } catch (const Error& error) {
    return {error.what()};  // malformed YAML: nothing behind it can be read
  }
  return fields.problems();
}

InstructionSet load_instruction_set(const std::filesystem::path& path) {
  constexpr std::int64_t kMaxBytes = 64 << 20;
  return parse_instruction_set(read_file(path, kMaxBytes), path.string());
}

}  // namespace instruct::instructions
