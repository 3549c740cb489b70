#include "instructions/instruction_set.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/file.h"
#include "base/text.h"
#include "base/yaml.h"

namespace instruct::instructions {
namespace {

constexpr std::array<std::string_view, 4> kVariableTypes{"text", "number", "list", "json"};
constexpr std::array<std::string_view, 7> kOutputTypes{"text", "label", "labels", "number", "span", "json", "list"};
constexpr std::array<std::string_view, 3> kCombines{"concat", "json", "last"};

// Reads the document and keeps going after each problem, so that a user sees all of them at once.
class Reader {
 public:
  explicit Reader(std::string origin) { set_.origin = std::move(origin); }

  InstructionSet read(const Value& root) {
    if (!root.is_object()) {
      problem(root.mark(), "expected 'name:', 'variables:' and 'instructions:'");
      return std::move(set_);
    }
    known_keys(root, {"name", "system", "variables", "instructions", "examples", "program", "combine"}, "");
    set_.name = text(root, "name").value_or("");
    set_.system = text(root, "system").value_or("");
    if (const Value* variables = object(root, "variables")) read_variables(*variables);
    if (const Value* instructions = object(root, "instructions")) {
      for (const auto& [verb, body] : instructions->as_object()) read_instruction(verb, body);
    }
    if (set_.instructions.empty() && root.find("instructions") == nullptr) problem(root.mark(), "'instructions:' is missing: there is no verb");
    if (const Value* examples = object(root, "examples")) read_examples(*examples);
    set_.program = text(root, "program").value_or("");
    if (const auto combine = choice(root, "combine", kCombines)) set_.combine = static_cast<Combine>(*combine);
    return std::move(set_);
  }
  std::vector<std::string> problems;

 private:
  void problem(Mark mark, const std::string& what) {
    problems.push_back(fmt::format("{}:{}:{}: {}", set_.origin, mark.line, mark.column, what));
  }
  void known_keys(const Value& value, const std::vector<std::string>& known, const std::string& where) {
    for (const auto& [key, member] : value.as_object()) {
      if (std::find(known.begin(), known.end(), key) != known.end()) continue;
      problem(member.mark(), fmt::format("unknown key '{}'{}{}", key, where, did_you_mean(key, known)));
    }
  }
  std::optional<std::string> text(const Value& parent, const char* key) {
    const Value* value = parent.find(key);
    if (value == nullptr || value->is_null()) return std::nullopt;
    if (value->is_string()) return value->as_string();
    problem(value->mark(), fmt::format("'{}' expects text, got {}", key, kind_name(value->kind())));
    return std::nullopt;
  }
  const Value* object(const Value& parent, const char* key) {
    const Value* value = parent.find(key);
    if (value == nullptr || value->is_null()) return nullptr;
    if (value->is_object()) return value;
    problem(value->mark(), fmt::format("'{}' expects named entries, got {}", key, kind_name(value->kind())));
    return nullptr;
  }
  template <std::size_t N>
  std::optional<std::size_t> choice(const Value& parent, const char* key, const std::array<std::string_view, N>& names) {
    const auto given = text(parent, key);
    if (!given) return std::nullopt;
    const auto found = std::find(names.begin(), names.end(), *given);
    if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
    const std::vector<std::string> known(names.begin(), names.end());
    problem(parent.find(key)->mark(), fmt::format("unknown {} '{}'{}", key, *given, did_you_mean(*given, known)));
    return std::nullopt;
  }
  std::vector<std::string> texts(const Value& parent, const char* key) {
    std::vector<std::string> result;
    const Value* value = parent.find(key);
    if (value == nullptr || value->is_null()) return result;
    if (value->is_string()) return {value->as_string()};
    if (!value->is_array()) {
      problem(value->mark(), fmt::format("'{}' expects a list of texts, got {}", key, kind_name(value->kind())));
      return result;
    }
    for (const Value& item : value->as_array()) {
      if (item.is_string()) {
        result.push_back(item.as_string());
      } else if (item.is_integer()) {
        result.push_back(std::to_string(item.as_integer()));
      } else {
        problem(item.mark(), fmt::format("'{}' expects texts, got {}", key, kind_name(item.kind())));
      }
    }
    return result;
  }
  static bool is_name(std::string_view name) {
    return !name.empty() && (std::isalpha(static_cast<unsigned char>(name[0])) != 0 || name[0] == '_') &&
           std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) != 0 || c == '_'; });
  }

  void read_variables(const Value& variables) {
    for (const auto& [name, body] : variables.as_object()) {
      Variable variable{.name = name};
      if (!is_name(name)) problem(body.mark(), fmt::format("variable name '{}': expected letters, digits and _", name));
      if (name == "verb" || name == "output") problem(body.mark(), fmt::format("'{}' cannot be a variable: rows use it", name));
      if (body.is_object()) {
        known_keys(body, {"type", "optional"}, fmt::format(" of variable '{}'", name));
        if (const auto type = choice(body, "type", kVariableTypes)) variable.type = static_cast<VariableType>(*type);
        if (const Value* optional = body.find("optional")) {
          if (optional->is_bool()) variable.optional = optional->as_bool();
          else problem(optional->mark(), "'optional' expects true or false");
        }
      } else if (!body.is_null()) {
        problem(body.mark(), fmt::format("variable '{}' expects {{type: text}}", name));
      }
      set_.variables.push_back(variable);
    }
  }

  void read_instruction(const std::string& verb, const Value& body) {
    Instruction instruction{.verb = verb, .mark = body.mark()};
    if (!is_name(verb)) problem(body.mark(), fmt::format("verb '{}': expected letters, digits and _", verb));
    if (!body.is_object()) {
      problem(body.mark(), fmt::format("verb '{}' expects inputs, templates and output", verb));
      return;
    }
    known_keys(body, {"inputs", "templates", "template", "output", "metrics"}, fmt::format(" of verb '{}'", verb));
    instruction.inputs = texts(body, "inputs");
    std::vector<std::string> names;
    for (const Variable& variable : set_.variables) names.push_back(variable.name);
    for (const std::string& input : instruction.inputs) {
      if (set_.find_variable(input) == nullptr) {
        problem(body.at("inputs").mark(), fmt::format("verb '{}': input '{}' is no variable{}", verb, input, did_you_mean(input, names)));
      }
    }
    read_templates(body, instruction);
    if (const Value* output = object(body, "output")) read_output(*output, instruction);
    instruction.metrics = texts(body, "metrics");
    set_.instructions.push_back(std::move(instruction));
  }

  void read_templates(const Value& body, Instruction& instruction) {
    const char* key = body.find("templates") != nullptr ? "templates" : "template";
    const std::vector<std::string> sources = texts(body, key);
    if (sources.empty()) {
      problem(body.mark(), fmt::format("verb '{}' has no templates", instruction.verb));
      return;
    }
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const Value& value = body.at(key).is_array() ? body.at(key).as_array()[i] : body.at(key);
      try {
        templates::Template parsed = templates::Template::parse(sources[i], fmt::format("template {} of '{}'", i + 1, instruction.verb));
        for (const std::string& name : parsed.free_variables()) {
          if (std::find(instruction.inputs.begin(), instruction.inputs.end(), name) != instruction.inputs.end()) continue;
          problem(value.mark(), fmt::format("verb '{}': template {} uses '{}', which is not among its inputs{}", instruction.verb,
                                            i + 1, name, did_you_mean(name, instruction.inputs)));
        }
        instruction.templates.push_back(std::move(parsed));
      } catch (const Error& error) {
        problem(value.mark(), error.what());
      }
    }
  }

  void read_output(const Value& body, Instruction& instruction) {
    OutputSpec& output = instruction.output;
    known_keys(body, {"type", "max_tokens", "labels", "minimum", "maximum", "integer", "schema"},
               fmt::format(" of the output of '{}'", instruction.verb));
    if (const auto type = choice(body, "type", kOutputTypes)) output.type = static_cast<OutputType>(*type);
    output.labels = texts(body, "labels");
    const bool labelled = output.type == OutputType::kLabel || output.type == OutputType::kLabels;
    if (labelled && output.labels.size() < 2) problem(body.mark(), fmt::format("verb '{}': a label output needs at least two labels", instruction.verb));
    for (std::size_t i = 0; i < output.labels.size(); ++i) {
      if (output.labels[i].empty()) problem(body.at("labels").mark(), "a label is empty");
      if (std::find(output.labels.begin(), output.labels.begin() + static_cast<std::ptrdiff_t>(i), output.labels[i]) !=
          output.labels.begin() + static_cast<std::ptrdiff_t>(i)) {
        problem(body.at("labels").mark(), fmt::format("label '{}' appears twice", output.labels[i]));
      }
    }
    if (const Value* tokens = body.find("max_tokens")) {
      if (tokens->is_integer() && tokens->as_integer() > 0) output.max_tokens = tokens->as_integer();
      else problem(tokens->mark(), "'max_tokens' expects a whole number above 0");
    }
    for (auto [key, target] : {std::pair{"minimum", &output.minimum}, {"maximum", &output.maximum}}) {
      const Value* value = body.find(key);
      if (value == nullptr) continue;
      if (value->is_number()) *target = value->as_double();
      else problem(value->mark(), fmt::format("'{}' expects a number", key));
    }
    if (const Value* integer = body.find("integer")) output.integer = integer->is_bool() && integer->as_bool();
    if (const Value* schema = body.find("schema")) {
      output.schema = *schema;
      if (!schema->is_object()) problem(schema->mark(), "'schema' expects a JSON schema object");
    }
  }

  void read_examples(const Value& examples) {
    std::vector<std::string> verbs;
    for (const Instruction& instruction : set_.instructions) verbs.push_back(instruction.verb);
    for (const auto& [verb, list] : examples.as_object()) {
      const auto known = std::find_if(set_.instructions.begin(), set_.instructions.end(), [&, name = verb](const Instruction& i) { return i.verb == name; });
      if (known == set_.instructions.end()) {
        problem(list.mark(), fmt::format("examples of unknown verb '{}'{}", verb, did_you_mean(verb, verbs)));
        continue;
      }
      if (!list.is_array()) {
        problem(list.mark(), fmt::format("examples of '{}' expect a list", verb));
        continue;
      }
      for (const Value& item : list.as_array()) {
        if (!item.is_object() || item.find("output") == nullptr) {
          problem(item.mark(), fmt::format("an example of '{}' needs its inputs and 'output'", verb));
          continue;
        }
        Shot shot{.variables = Value::object(), .output = item.at("output")};
        for (const auto& [key, value] : item.as_object()) {
          if (key == "output") continue;
          if (std::find(known->inputs.begin(), known->inputs.end(), key) == known->inputs.end()) {
            problem(value.mark(), fmt::format("an example of '{}' has '{}', which is no input of it{}", verb, key, did_you_mean(key, known->inputs)));
          }
          shot.variables.set(key, value);
        }
        set_.examples[verb].push_back(std::move(shot));
      }
    }
  }

  InstructionSet set_;
};

}  // namespace

std::string_view type_name(VariableType type) { return kVariableTypes[static_cast<std::size_t>(type)]; }
std::string_view type_name(OutputType type) { return kOutputTypes[static_cast<std::size_t>(type)]; }

const Variable* InstructionSet::find_variable(std::string_view wanted) const {
  for (const Variable& variable : variables) {
    if (variable.name == wanted) return &variable;
  }
  return nullptr;
}

const Instruction& InstructionSet::instruction(std::string_view verb) const {
  std::vector<std::string> verbs;
  for (const Instruction& candidate : instructions) {
    if (candidate.verb == verb) return candidate;
    verbs.push_back(candidate.verb);
  }
  raise(ErrorCategory::kInvalidArgument, "{}: unknown verb '{}'{}", origin, verb, did_you_mean(verb, verbs));
}

InstructionSet parse_instruction_set(std::string_view source, const std::string& origin) {
  Reader reader(origin);
  InstructionSet set = reader.read(parse_yaml(source, origin));
  if (!reader.problems.empty()) {
    std::string all;
    for (const std::string& problem : reader.problems) all += (all.empty() ? "" : "\n") + problem;
    raise(ErrorCategory::kBadData, "{}", all);
  }
  return set;
}

std::vector<std::string> check_instruction_set(std::string_view source, const std::string& origin) {
  Reader reader(origin);
  try {
    reader.read(parse_yaml(source, origin));
  } catch (const Error& error) {
    reader.problems.emplace_back(error.what());
  }
  return reader.problems;
}

InstructionSet load_instruction_set(const std::filesystem::path& path) {
  return parse_instruction_set(read_file(path, 64 << 20), path.string());
}

}  // namespace instruct::instructions
