#include "instructions/instruction_set_reader.h"

#include <algorithm>
#include <array>

#include "base/error.h"
#include "base/text.h"
#include "instructions/input_decoder.h"
#include "instructions/output_encoder.h"
#include "instructions/program_check.h"

namespace instruct::instructions {
namespace {

constexpr auto kVariableTypes = std::to_array<std::string_view>({"text", "number", "list", "json", "label"});
constexpr auto kCombines = std::to_array<std::string_view>({"concat", "json", "last"});
constexpr auto kMetrics =
    std::to_array<std::string_view>({"rouge", "rouge1", "rouge2", "rougeL", "rougeLsum", "bleu", "chrf", "em",
                                     "exact_match", "f1", "precision", "recall", "accuracy", "perplexity"});
constexpr auto kRootKeys =
    std::to_array<std::string_view>({"name", "system", "variables", "instructions", "examples", "program", "combine"});
constexpr auto kVariableKeys = std::to_array<std::string_view>({"type", "optional", "labels"});
constexpr auto kVerbKeys = std::to_array<std::string_view>({"inputs", "templates", "template", "output", "metrics"});

class Reader {
 public:
  Reader(const Value& root, const std::string& origin, FieldReader& fields) : root_(root), fields_(fields) {
    set_.origin = origin;
  }

  InstructionSet read() {
    if (!root_.is_object()) {
      fields_.problem(root_.mark().line > 0 ? root_.mark() : Mark{1, 1},
                      root_.is_null() ? "the file is empty: expected 'name:', 'variables:' and 'instructions:'"
                                      : "expected 'name:', 'variables:' and 'instructions:'");
      return std::move(set_);
    }
    fields_.known_keys(root_, kRootKeys, "");
    set_.name = fields_.text(root_, "name").value_or("");
    set_.system = fields_.text(root_, "system").value_or("");
    if (const auto combine = fields_.choice(root_, "combine", kCombines)) set_.combine = static_cast<Combine>(*combine);
    if (const Value* variables = fields_.object(root_, "variables")) read_variables(*variables);
    read_instructions();
    if (const Value* examples = fields_.object(root_, "examples")) read_examples(*examples);
    read_program();
    return std::move(set_);
  }

 private:
  void read_variables(const Value& variables) {
    for (const auto& [name, body] : variables.as_object()) {
      Variable variable{.name = name};
      const bool ascii =
          std::all_of(name.begin(), name.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
      if (!is_program_name(name) || !ascii) {
        fields_.problem_at_key(
            variables, name,
            fmt::format("variable name '{}': expected letters a-z, digits and '_', not starting with a digit", name));
      }
      if (name == "verb" || name == "output")
        fields_.problem_at_key(variables, name,
                               fmt::format("'{}' cannot be a variable: rows have a field of that name", name));
      if (body.is_string()) {  // short form, `text: text`
        if (const auto type = fields_.choice(variables, name, kVariableTypes))
          variable.type = static_cast<VariableType>(*type);
      } else if (body.is_object()) {
        fields_.known_keys(body, kVariableKeys, fmt::format(" of variable '{}'", name));
        if (const auto type = fields_.choice(body, "type", kVariableTypes))
          variable.type = static_cast<VariableType>(*type);
        variable.optional = fields_.boolean(body, "optional").value_or(false);
        variable.labels = fields_.texts(body, "labels", FieldReader::Items::kTextsAndNumbers);
        if (!variable.labels.empty() && variable.type != VariableType::kLabel) {
          fields_.problem_at_key(
              body, "labels",
              fmt::format("'labels' means nothing for a variable of type '{}'", type_name(variable.type)));
        }
      } else if (!body.is_null()) {
        fields_.problem(body.mark(),
                        fmt::format("variable '{}' expects {{type: text}}, got {}", name, kind_name(body.kind())));
      }
      set_.variables.push_back(std::move(variable));
    }
  }

  void read_instructions() {
    const Value* instructions = fields_.object(root_, "instructions");
    if (instructions == nullptr || instructions->size() == 0) {
      if (root_.find("instructions") == nullptr || root_.at("instructions").size() == 0) {
        fields_.problem(root_.find("instructions") == nullptr ? root_.mark() : root_.at("instructions").mark(),
                        "there is no verb: 'instructions:' is missing or empty");
      }
      return;
    }
    for (const auto& [verb, body] : instructions->as_object()) {
      if (!is_program_name(verb)) {
        fields_.problem_at_key(
            *instructions, verb,
            fmt::format("verb '{}': expected letters, digits and '_', not starting with a digit", verb));
      }
      set_.instructions.push_back(read_instruction(verb, body));
    }
  }

  Instruction read_instruction(const std::string& verb, const Value& body) {
    Instruction instruction{.verb = verb, .mark = body.mark()};
    if (!body.is_object()) {
      fields_.problem(body.mark(), fmt::format("verb '{}' expects 'inputs:', 'templates:' and 'output:', got {}", verb,
                                               kind_name(body.kind())));
      return instruction;
    }
    fields_.known_keys(body, kVerbKeys, fmt::format(" of verb '{}'", verb));
    read_inputs(body, instruction);
    read_templates(body, instruction);
    if (const Value* output = fields_.object(body, "output")) {
      instruction.output = read_output_spec(*output, instruction, set_, fields_);
    } else if (body.find("output") == nullptr) {
      fields_.problem(body.mark(), fmt::format("verb '{}' has no 'output', such as {{type: text}}", verb));
    }
    read_metrics(body, instruction);
    return instruction;
  }

  void read_inputs(const Value& body, Instruction& instruction) {
    std::vector<std::string> names;
    for (const Variable& variable : set_.variables) names.push_back(variable.name);
    const std::vector<std::string> written = fields_.texts(body, "inputs");
    for (std::size_t i = 0; i < written.size(); ++i) {
      const std::string& input = written[i];
      const Mark mark = item(body.at("inputs"), i).mark();
      if (std::find(instruction.inputs.begin(), instruction.inputs.end(), input) != instruction.inputs.end()) {
        fields_.problem(mark, fmt::format("verb '{}': input '{}' appears twice", instruction.verb, input));
        continue;
      }
      if (set_.find_variable(input) == nullptr) {
        fields_.problem(mark, fmt::format("verb '{}': input '{}' is not among the variables{}", instruction.verb, input,
                                          did_you_mean(input, names)));
      }
      instruction.inputs.push_back(input);
      input_marks_[instruction.verb].push_back(mark);
    }
  }

  // Element i of a list of texts; the value itself when it is a lone text.
  static const Value& item(const Value& list, std::size_t i) {
    return list.is_array() && i < list.size() ? list.as_array()[i] : list;
  }

  void read_templates(const Value& body, Instruction& instruction) {
    const char* key = body.find("templates") != nullptr ? "templates" : "template";
    if (body.find("templates") != nullptr && body.find("template") != nullptr) {
      fields_.problem_at_key(body, "template", "'template' and 'templates' mean the same; give one");
    }
    const std::vector<std::string> sources = fields_.texts(body, key);
    if (sources.empty()) {
      if (body.find(key) == nullptr || body.at(key).size() == 0) {
        fields_.problem(body.find(key) == nullptr ? body.mark() : body.at(key).mark(),
                        fmt::format("verb '{}' has no templates", instruction.verb));
      }
      return;
    }
    std::vector<std::string> used;
    bool all_parsed = true;
    for (std::size_t i = 0; i < sources.size(); ++i) {
      const std::string what = fmt::format("verb '{}': template {}: ", instruction.verb, i + 1);
      const Value& value = item(body.at(key), i);
      try {
        const std::string origin = fmt::format("template {} of '{}'", i + 1, instruction.verb);
        templates::Template parsed = templates::Template::parse(sources[i], origin);
        for (const std::string& name : parsed.free_variables()) {
          used.push_back(name);
          if (std::find(instruction.inputs.begin(), instruction.inputs.end(), name) != instruction.inputs.end())
            continue;
          fields_.problem_inside(
              value, place_of(sources[i], name),
              fmt::format("{}'{}' is not among the inputs{}", what, name, did_you_mean(name, instruction.inputs)));
        }
        instruction.templates.push_back(std::move(parsed));
      } catch (const Error& error) {
        all_parsed = false;
        fields_.problem_inside(value, error.what(), fmt::format("template {} of '{}'", i + 1, instruction.verb), what);
      }
    }
    if (!all_parsed) return;
    for (std::size_t i = 0; i < instruction.inputs.size(); ++i) {
      if (std::find(used.begin(), used.end(), instruction.inputs[i]) != used.end()) continue;
      fields_.problem(input_marks_[instruction.verb][i],
                      fmt::format("verb '{}': no template uses input '{}'", instruction.verb, instruction.inputs[i]));
    }
  }

  // Line and column of a name inside {{ }} or {% %} of a template; its start when it is not found.
  static Mark place_of(const std::string& source, const std::string& name) {
    const auto is_word = [&](std::size_t at) {
      return at < source.size() && (std::isalnum(static_cast<unsigned char>(source[at])) != 0 || source[at] == '_');
    };
    std::size_t at = source.find('{');
    while (at != std::string::npos) {
      at = source.find(name, at);
      if (at == std::string::npos || ((at == 0 || !is_word(at - 1)) && !is_word(at + name.size()))) break;
      ++at;
    }
    if (at == std::string::npos) return {1, 1};
    const std::string_view before = std::string_view(source).substr(0, at);
    const std::size_t line_start = before.rfind('\n') == std::string_view::npos ? 0 : before.rfind('\n') + 1;
    return {static_cast<int>(std::count(before.begin(), before.end(), '\n')) + 1,
            static_cast<int>(decode_utf8(before.substr(line_start)).size()) + 1};
  }

  void read_metrics(const Value& body, Instruction& instruction) {
    instruction.metrics = fields_.texts(body, "metrics");
    const std::vector<std::string> known(kMetrics.begin(), kMetrics.end());
    for (std::size_t i = 0; i < instruction.metrics.size(); ++i) {
      if (std::find(known.begin(), known.end(), instruction.metrics[i]) != known.end()) continue;
      fields_.problem(item(body.at("metrics"), i).mark(), fmt::format("unknown metric '{}'{}", instruction.metrics[i],
                                                                      did_you_mean(instruction.metrics[i], known)));
    }
  }

  void read_examples(const Value& examples) {
    std::vector<std::string> verbs;
    for (const Instruction& instruction : set_.instructions) verbs.push_back(instruction.verb);
    for (const auto& [verb, list] : examples.as_object()) {
      const Instruction* instruction = set_.find_instruction(verb);
      if (instruction == nullptr) {
        fields_.problem_at_key(examples, verb,
                               fmt::format("examples of unknown verb '{}'{}", verb, did_you_mean(verb, verbs)));
      } else if (!list.is_array()) {
        fields_.problem(list.mark(),
                        fmt::format("the examples of '{}' expect a list, got {}", verb, kind_name(list.kind())));
      } else {
        for (const Value& example : list.as_array()) read_example(*instruction, example);
      }
    }
  }

  void read_example(const Instruction& instruction, const Value& example) {
    if (!example.is_object() || example.find("output") == nullptr) {
      fields_.problem(example.mark(),
                      fmt::format("an example of '{}' needs its inputs and 'output'", instruction.verb));
      return;
    }
    Shot shot{.variables = Value::object(), .output = example.at("output")};
    bool good = true;
    for (const auto& [key, value] : example.as_object()) {
      if (key == "output") continue;
      if (std::find(instruction.inputs.begin(), instruction.inputs.end(), key) == instruction.inputs.end()) {
        fields_.problem_at_key(example, key,
                               fmt::format("an example of '{}' has '{}', which is not among its inputs{}",
                                           instruction.verb, key, did_you_mean(key, instruction.inputs)));
        good = false;
      }
      shot.variables.set(key, value);
    }
    try {
      // Inputs without a declared variable are a problem already.
      const bool declared = std::all_of(instruction.inputs.begin(), instruction.inputs.end(),
                                        [&](const std::string& input) { return set_.find_variable(input) != nullptr; });
      if (good && declared) {
        check_inputs(set_, instruction, shot.variables);
        encode_output(instruction, shot.output, &shot.variables);
      }
    } catch (const Error& error) {
      fields_.problem(example.mark(), fmt::format("example: {}", error.what()));
    }
    set_.examples[instruction.verb].push_back(std::move(shot));
  }

  void read_program() {
    const auto source = fields_.text(root_, "program");
    if (!source) return;
    set_.program = *source;
    const Value& value = root_.at("program");
    try {
      for (const ProgramProblem& problem : check_program(parse_program(*source, "program"), set_)) {
        fields_.problem_inside(value, problem.mark, fmt::format("program: {}", problem.message));
      }
    } catch (const Error& error) {
      fields_.problem_inside(value, error.what(), "program", "program: ");
    }
  }

  const Value& root_;
  FieldReader& fields_;
  InstructionSet set_;
  std::map<std::string, std::vector<Mark>> input_marks_;  // by verb, of each input
};

}  // namespace

std::string_view type_name(VariableType type) {
  return kVariableTypes[static_cast<std::size_t>(type)];
}
std::string_view combine_name(Combine combine) {
  return kCombines[static_cast<std::size_t>(combine)];
}
std::span<const std::string_view> metric_names() {
  return kMetrics;
}

InstructionSet read_instruction_set(const Value& root, const std::string& origin, FieldReader& fields) {
  return Reader(root, origin, fields).read();
}

}  // namespace instruct::instructions
