#include "instructions/program_check.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "instructions/continuation.h"
#include "instructions/selector.h"

namespace instruct::instructions {
namespace {

std::vector<std::string> verbs_of(const InstructionSet& set) {
  std::vector<std::string> verbs;
  for (const Instruction& instruction : set.instructions) verbs.push_back(instruction.verb);
  return verbs;
}

std::vector<std::string> variables_of(const InstructionSet& set) {
  std::vector<std::string> names;
  for (const Variable& variable : set.variables) names.push_back(variable.name);
  return names;
}

std::string join(const std::vector<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "none" : text;
}

// Whether every label of `some` is among `all`; an empty `all` allows any.
bool within(const std::vector<std::string>& some, const std::vector<std::string>& all) {
  return all.empty() || std::all_of(some.begin(), some.end(), [&](const std::string& label) {
           return std::find(all.begin(), all.end(), label) != all.end();
         });
}

// Whether what a verb puts out can be the value of a variable. Any output can be read as text.
bool output_fits(const Variable& variable, const OutputSpec& output) {
  switch (variable.type) {
    case VariableType::kText:
      return true;
    case VariableType::kNumber:
      return output.type == OutputType::kNumber;
    case VariableType::kLabel:
      return output.type == OutputType::kLabel && within(output.labels, variable.labels);
    case VariableType::kList:
      return output.type == OutputType::kList || output.type == OutputType::kLabels;
    case VariableType::kJson:
      return output.type != OutputType::kText && output.type != OutputType::kSpan &&
             output.type != OutputType::kSentences;
  }
  return false;
}

bool variable_fits(const Variable& wanted, const Variable& given) {
  if (wanted.type == VariableType::kText || wanted.type == given.type) {
    return wanted.type != VariableType::kLabel ||
           (within(given.labels, wanted.labels) && (wanted.labels.empty() || !given.labels.empty()));
  }
  return wanted.type == VariableType::kJson &&
         (given.type == VariableType::kNumber || given.type == VariableType::kList);
}

class Checker {
 public:
  explicit Checker(const InstructionSet& set) : set_(set) {}

  void check(const Call& call) {
    const Instruction* instruction = set_.find_instruction(call.verb);
    if (instruction == nullptr) {
      problem(call.mark, fmt::format("unknown verb '{}'{}", call.verb, did_you_mean(call.verb, verbs_of(set_))));
      for (const Argument& argument : call.arguments) {
        for (const Call& nested : argument.call) check(nested);
      }
      return;
    }
    for (const BoundArgument& bound : bind_arguments(call, *instruction, set_, problems)) {
      check(*bound.argument, *bound.variable, call.verb);
    }
  }

  std::vector<ProgramProblem> problems;

 private:
  void problem(Mark mark, std::string message) { problems.push_back({mark, std::move(message)}); }
  void misfit(const Argument& argument, const Variable& variable, const std::string& verb, std::string_view got) {
    problem(argument.mark,
            fmt::format("'{}' of '{}' expects {}, got {}", variable.name, verb, type_name(variable.type), got));
  }

  void check(const Argument& argument, const Variable& variable, const std::string& verb) {
    switch (argument.kind) {
      case ArgumentKind::kVariable:
        return check_variable(argument, variable, verb);
      case ArgumentKind::kSelector:
        return check_selector(argument, variable, verb);
      case ArgumentKind::kLiteral:
        return check_literal(argument, variable, verb);
      case ArgumentKind::kCall:
        break;
    }
    for (const Call& nested : argument.call) {
      check(nested);
      const Instruction* inner = set_.find_instruction(nested.verb);
      if (inner != nullptr && !output_fits(variable, inner->output)) {
        misfit(argument, variable, verb,
               fmt::format("the {} that '{}' puts out", type_name(inner->output.type), nested.verb));
      }
    }
  }

  void check_variable(const Argument& argument, const Variable& variable, const std::string& verb) {
    const Variable* given = set_.find_variable(argument.text);
    if (given == nullptr) {
      const bool is_verb = set_.find_instruction(argument.text) != nullptr;
      problem(argument.mark, is_verb
                                 ? fmt::format("'{}' is a verb: write {}(...) to run it", argument.text, argument.text)
                                 : fmt::format("unknown variable '{}'{}", argument.text,
                                               did_you_mean(argument.text, variables_of(set_))));
    } else if (!variable_fits(variable, *given)) {
      misfit(argument, variable, verb, fmt::format("variable '{}' of type {}", given->name, type_name(given->type)));
    }
  }

  void check_selector(const Argument& argument, const Variable& variable, const std::string& verb) {
    try {
      parse_selector(argument.text);
    } catch (const Error& error) {
      problem(argument.mark, error.what());
      return;
    }
    if (variable.type != VariableType::kText)
      misfit(argument, variable, verb, "a selector (a part of the document is text)");
    else if (set_.document_variable() == nullptr)
      problem(argument.mark, "a selector needs a document, and no variable is of type text");
  }

  void check_literal(const Argument& argument, const Variable& variable, const std::string& verb) {
    const Value& literal = argument.literal;
    switch (variable.type) {
      case VariableType::kText:
        if (!literal.is_string())
          misfit(argument, variable, verb, fmt::format("number {}; put it in double quotes", dump_json(literal)));
        return;
      case VariableType::kNumber:
        if (!literal.is_number()) misfit(argument, variable, verb, "a text");
        return;
      case VariableType::kLabel:
        if (!literal.is_string()) {
          misfit(argument, variable, verb, fmt::format("number {}", dump_json(literal)));
        } else if (!within({literal.as_string()}, variable.labels)) {
          problem(argument.mark, fmt::format("label '{}' is not one of '{}'{}", literal.as_string(), variable.name,
                                             did_you_mean(literal.as_string(), variable.labels)));
        }
        return;
      case VariableType::kList:
      case VariableType::kJson:
        check_json(argument, variable, verb);
    }
  }

  void check_json(const Argument& argument, const Variable& variable, const std::string& verb) {
    if (!argument.literal.is_string()) {
      if (variable.type == VariableType::kList) misfit(argument, variable, verb, "a number");
      return;
    }
    try {
      const Value value = parse_json(argument.literal.as_string(), fmt::format("'{}' of '{}'", variable.name, verb));
      if (variable.type == VariableType::kList && !value.is_array())
        misfit(argument, variable, verb, fmt::format("JSON {}", kind_name(value.kind())));
    } catch (const Error& error) {
      problem(argument.mark, error.what());
    }
  }

  const InstructionSet& set_;
};

}  // namespace

std::vector<BoundArgument> bind_arguments(const Call& call, const Instruction& instruction, const InstructionSet& set,
                                          std::vector<ProgramProblem>& problems) {
  const std::vector<std::string>& inputs = instruction.inputs;
  std::vector<const Argument*> by_input(inputs.size(), nullptr);
  bool named = false;
  std::size_t place = 0;
  for (const Argument& argument : call.arguments) {
    std::size_t input = place;
    if (argument.name.empty()) {
      ++place;
      if (named) {
        problems.push_back(
            {argument.mark, fmt::format("an argument of '{}' without a name comes after one with a name", call.verb)});
        continue;
      }
      if (input >= inputs.size()) {
        problems.push_back(
            {argument.mark, fmt::format("'{}' takes {} argument{} ({}), this is number {}", call.verb, inputs.size(),
                                        inputs.size() == 1 ? "" : "s", join(inputs), place)});
        continue;
      }
    } else {
      named = true;
      input = static_cast<std::size_t>(std::find(inputs.begin(), inputs.end(), argument.name) - inputs.begin());
      if (input == inputs.size()) {
        problems.push_back({argument.mark, fmt::format("'{}' has no input '{}'{}", call.verb, argument.name,
                                                       did_you_mean(argument.name, inputs))});
        continue;
      }
    }
    if (by_input[input] != nullptr) {
      problems.push_back({argument.mark, fmt::format("'{}' of '{}' is given twice", inputs[input], call.verb)});
      continue;
    }
    by_input[input] = &argument;
  }
  std::vector<BoundArgument> bound;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const Variable* variable = set.find_variable(inputs[i]);
    if (variable == nullptr) continue;  // the set itself has that problem
    if (by_input[i] != nullptr) {
      bound.push_back({variable, by_input[i]});
    } else if (!variable->optional) {
      problems.push_back({call.mark, fmt::format("'{}' needs an argument for '{}'", call.verb, inputs[i])});
    }
  }
  return bound;
}

std::vector<ProgramProblem> check_program(const Program& program, const InstructionSet& set) {
  Checker checker(set);
  for (const Call& call : program.calls) checker.check(call);
  if (checker.problems.empty() && program.continues) {
    try {
      find_continuation(program);
    } catch (const Error& error) {
      checker.problems.push_back({program.continues_mark, error.what()});
    }
  }
  return std::move(checker.problems);
}

Program parse_checked_program(std::string_view source, const InstructionSet& set, std::string_view origin) {
  Program program = parse_program(source, origin);
  std::string all;
  for (const ProgramProblem& problem : check_program(program, set)) {
    all += fmt::format("{}{}: line {}, column {}: {}", all.empty() ? "" : "\n", origin, problem.mark.line,
                       problem.mark.column, problem.message);
  }
  if (!all.empty()) raise(ErrorCategory::kBadData, "{}", all);
  return program;
}

}  // namespace instruct::instructions
