// Instruction sets: the verbs a user defines, read from `*.iset.yaml` (see docs/instruction-sets.md).
//
// A set is a list of instructions (verb, inputs, templates, output type) over shared variables, with examples and a
// program. Reading collects every problem of a file, so that a user mends them in one go.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/value.h"
#include "instructions/json_schema.h"
#include "templates/template.h"

namespace instruct::instructions {

enum class VariableType { kText, kNumber, kList, kJson, kLabel };
enum class OutputType { kText, kLabel, kLabels, kNumber, kSpan, kJson, kList, kSentences };
enum class Combine { kConcat, kJson, kLast };

struct Variable {
  std::string name;
  VariableType type = VariableType::kText;
  bool optional = false;
  std::vector<std::string> labels;  // label: the values it may have; empty means any
};

struct OutputSpec {
  OutputType type = OutputType::kText;
  std::int64_t max_tokens = 256;
  std::vector<std::string> labels;  // label and labels, in the file's order
  // label, by label: the words that may stand at [MASK] for it. Empty where none are given: then each label for itself.
  std::vector<std::vector<std::string>> verbalisers;
  std::optional<double> minimum, maximum;  // number
  bool integer = false;                    // number
  std::int64_t min_items = 0;              // labels, list and sentences
  std::int64_t max_items = SchemaNode::kUnbounded;
  std::string from;                        // span, sentences, list and json: the text input they are parts of, or ""
  Value schema;                            // json: as written
  std::shared_ptr<const JsonSchema> form;  // json, list and labels: what the JSON text must fit
};

struct Instruction {
  std::string verb;
  std::vector<std::string> inputs;  // variable names, in the order positional arguments bind
  std::vector<templates::Template> templates;
  OutputSpec output;
  std::vector<std::string> metrics;
  Mark mark;

  // Whether it is answered by the words that fit into a gap, which every template has: kMaskMark.
  bool is_cloze() const;
};

// In a template, a gap that the word for the answer is to fill.
inline constexpr std::string_view kMaskMark = "[MASK]";

// A few-shot example of a verb.
struct Shot {
  Value variables;
  Value output;
};

struct InstructionSet {
  std::string name;
  std::string system;
  std::vector<Variable> variables;
  std::vector<Instruction> instructions;
  std::map<std::string, std::vector<Shot>> examples;
  std::string program;  // empty when the file has none; checked against the set
  Combine combine = Combine::kConcat;
  std::string origin;

  // Raises InvalidArgument naming the nearest verb.
  const Instruction& instruction(std::string_view verb) const;
  const Instruction* find_instruction(std::string_view verb) const;
  const Variable* find_variable(std::string_view name) const;
  // The variable a document is read into: the first text variable that is not optional, else the first text variable;
  // nullptr when there is none.
  const Variable* document_variable() const;
};

std::string_view type_name(VariableType type);
std::string_view type_name(OutputType type);
std::string_view combine_name(Combine combine);

// Names that `metrics:` may list.
std::span<const std::string_view> metric_names();

// Reads a file; raises one BadData error that lists every problem, each as FILE:LINE:COLUMN: message.
InstructionSet load_instruction_set(const std::filesystem::path& path);
InstructionSet parse_instruction_set(std::string_view text, const std::string& origin);
// The problems only (empty when the file is good).
std::vector<std::string> check_instruction_set(std::string_view text, const std::string& origin);

}  // namespace instruct::instructions
