#include "instructions/plan.h"

#include <algorithm>
#include <map>

#include "base/error.h"
#include "base/json.h"
#include "instructions/continuation.h"
#include "instructions/input_decoder.h"
#include "instructions/output_encoder.h"
#include "instructions/program_check.h"
#include "instructions/selector.h"

namespace instruct::instructions {
namespace {

// First selector argument of a call tree that says `every`, or nullptr.
Argument* find_every(Call& call, int& count) {
  Argument* found = nullptr;
  for (Argument& argument : call.arguments) {
    if (argument.kind == ArgumentKind::kSelector && parse_selector(argument.text).every) {
      ++count;
      if (found == nullptr) found = &argument;
    }
    for (Call& nested : argument.call) {
      Argument* inner = find_every(nested, count);
      if (found == nullptr) found = inner;
    }
  }
  return found;
}

class Planner {
 public:
  Planner(const InstructionSet& set, const Value& variables, const PlanLimits& limits)
      : set_(set), variables_(variables), limits_(limits), document_(document_text()) {}

  Plan make(const Program& program) {
    plan_.list = program.list;
    if (!program.continues) {
      for (const Call& call : program.calls) add_expanded(call);
      return std::move(plan_);
    }
    const Continuation continuation = find_continuation(program);
    for (std::size_t i = 0; i < continuation.first; ++i) add_expanded(program.calls[i]);
    for (std::size_t i = continuation.first; i < program.calls.size(); ++i) {
      Call call = program.calls[i];
      if (reaches(call)) {
        clip(call);
      } else if (i > continuation.first) {  // the pattern's first call must be there
        return std::move(plan_);
      }
      add_expanded(call);
    }
    continue_to_the_end(continuation);
    return std::move(plan_);
  }

 private:
  std::string document_text() const {
    const Variable* variable = set_.document_variable();
    const Value* value = variable == nullptr ? nullptr : variables_.find(variable->name);
    return value != nullptr && value->is_string() ? value->as_string() : std::string();
  }

  void continue_to_the_end(const Continuation& continuation) {
    for (std::int64_t repetition = 1;; ++repetition) {
      for (std::size_t place = 0; place < continuation.pattern.size(); ++place) {
        Call call = continued_call(continuation, place, repetition);
        if (!reaches(call)) return;
        clip(call);
        add_expanded(call);
      }
    }
  }

  // Whether everything a call selects starts inside the document.
  bool reaches(const Call& call) {
    const std::vector<Selector> selectors = selectors_of(call);
    return std::all_of(selectors.begin(), selectors.end(), [&](const Selector& selector) {
      return selector.every || document_.select_within(selector).has_value();
    });
  }

  // Ends the ranges of a continued call at the document's end.
  void clip(Call& call) {
    for (Argument& argument : call.arguments) {
      for (Call& nested : argument.call) clip(nested);
      if (argument.kind != ArgumentKind::kSelector) continue;
      Selector selector = parse_selector(argument.text);
      if (selector.every || selector.unit == TextUnit::kDocument || selector.last.from_end) continue;
      const auto count = static_cast<std::int64_t>(document_.units(selector.unit).size());
      selector.last.number = std::min(selector.last.number, count);
      argument.text = print_selector(selector);
    }
  }

  // One call of the program: one in the plan, or one per unit when it says `every`.
  void add_expanded(const Call& written) {
    Call call = written;
    int count = 0;
    Argument* every = find_every(call, count);
    if (every == nullptr) {
      plan_.outputs.push_back(add(call));
      return;
    }
    if (count > 1) {
      raise(ErrorCategory::kBadData, "{}: two 'every' in one call; at most one says what is repeated",
            print_call(written));
    }
    Selector selector = parse_selector(every->text);
    const std::size_t units = document_.select(selector).size();
    selector.every = false;
    for (std::size_t i = 1; i <= units; ++i) {
      selector.first = selector.last = {static_cast<std::int64_t>(i), false};
      every->text = print_selector(selector);
      plan_.outputs.push_back(add(call));
    }
  }

  // Index of a call in the plan; the calls inside it come before it.
  std::size_t add(const Call& call) {
    const Instruction& instruction = set_.instruction(call.verb);
    PlannedCall planned{.verb = call.verb, .source = print_call(call)};
    std::vector<ProgramProblem> problems;
    for (const BoundArgument& bound : bind_arguments(call, instruction, set_, problems)) {
      planned.bindings.push_back(bind(*bound.argument, *bound.variable));
    }
    if (!problems.empty()) raise(ErrorCategory::kBadData, "{}", problems.front().message);
    const std::string key = key_of(planned);
    if (const auto known = by_key_.find(key); known != by_key_.end()) return known->second;
    for (const Binding& binding : planned.bindings) {
      if (!binding.call) continue;
      planned.parents.push_back(*binding.call);
      planned.depth = std::max(planned.depth, plan_.calls[*binding.call].depth + 1);
    }
    std::sort(planned.parents.begin(), planned.parents.end());
    planned.parents.erase(std::unique(planned.parents.begin(), planned.parents.end()), planned.parents.end());
    if (static_cast<std::int64_t>(plan_.calls.size()) >= limits_.max_calls) {
      raise(ErrorCategory::kInvalidArgument, "the program makes more than {} calls over this document",
            limits_.max_calls);
    }
    plan_.calls.push_back(std::move(planned));
    by_key_.emplace(key, plan_.calls.size() - 1);
    return plan_.calls.size() - 1;
  }

  Binding bind(const Argument& argument, const Variable& variable) {
    Binding binding{.variable = variable.name};
    switch (argument.kind) {
      case ArgumentKind::kCall:
        binding.call = add(argument.call.front());
        break;
      case ArgumentKind::kSelector:
        binding.range = document_.select(parse_selector(argument.text)).front();
        binding.value = Value(document_.text().substr(binding.range->begin, binding.range->end - binding.range->begin));
        break;
      case ArgumentKind::kLiteral:
        binding.value = literal(argument.literal, variable);
        break;
      case ArgumentKind::kVariable: {
        const Value* value = variables_.find(argument.text);
        const Variable* given = set_.find_variable(argument.text);
        if (value != nullptr && !value->is_null())
          binding.value = as_type(*value, variable);
        else if (given == nullptr || !given->optional)
          raise(ErrorCategory::kBadData, "variable '{}' has no value", argument.text);
        else if (!variable.optional)
          raise(ErrorCategory::kBadData, "variable '{}' has no value, and '{}' needs one", argument.text,
                variable.name);
        break;
      }
    }
    return binding;
  }

  static Value as_type(const Value& value, const Variable& variable) {
    return variable.type == VariableType::kText && !value.is_string() ? Value(input_text(value)) : value;
  }

  static Value literal(const Value& value, const Variable& variable) {
    const bool parsed = variable.type == VariableType::kList || variable.type == VariableType::kJson;
    return parsed && value.is_string() ? parse_json(value.as_string(), fmt::format("literal for '{}'", variable.name))
                                       : value;
  }

  // What makes two calls the same: verb and what its inputs get.
  static std::string key_of(const PlannedCall& call) {
    Value key = Value::array();
    key.push(call.verb);
    for (const Binding& binding : call.bindings) {
      key.push(binding.variable);
      key.push(binding.call.has_value());
      key.push(binding.call ? Value(static_cast<std::int64_t>(*binding.call)) : binding.value);
    }
    return dump_json(key);
  }

  const InstructionSet& set_;
  const Value& variables_;
  const PlanLimits& limits_;
  SegmentedText document_;
  Plan plan_;
  std::map<std::string, std::size_t> by_key_;
};

}  // namespace

Plan make_plan(const Program& program, const InstructionSet& set, const Value& variables, const PlanLimits& limits) {
  const std::vector<ProgramProblem> problems = check_program(program, set);
  if (!problems.empty()) {
    raise(ErrorCategory::kBadData, "program: line {}, column {}: {}", problems.front().mark.line,
          problems.front().mark.column, problems.front().message);
  }
  return Planner(set, variables, limits).make(program);
}

std::vector<std::vector<std::size_t>> waves(const Plan& plan) {
  std::vector<std::vector<std::size_t>> result;
  for (std::size_t i = 0; i < plan.calls.size(); ++i) {
    const auto depth = static_cast<std::size_t>(plan.calls[i].depth);
    if (depth >= result.size()) result.resize(depth + 1);
    result[depth].push_back(i);
  }
  return result;
}

Value resolve_variables(const PlannedCall& call, const InstructionSet& set, std::span<const Value> outputs) {
  Value variables = Value::object();
  for (const Binding& binding : call.bindings) {
    const Variable* variable = set.find_variable(binding.variable);
    INSTRUCT_CHECK(!binding.call || *binding.call < outputs.size());
    const Value& value = binding.call ? outputs[*binding.call] : binding.value;
    const bool as_text = variable != nullptr && variable->type == VariableType::kText && !value.is_null();
    variables.set(binding.variable, as_text ? Value(output_text(value)) : value);
  }
  return variables;
}

std::string combine_outputs(const Plan& plan, Combine combine, std::span<const Value> outputs,
                            std::span<const Value> details) {
  INSTRUCT_CHECK(outputs.size() == plan.calls.size());
  INSTRUCT_CHECK(details.empty() || details.size() == plan.calls.size());
  if (combine == Combine::kLast) return plan.outputs.empty() ? "" : output_text(outputs[plan.outputs.back()]);
  if (combine == Combine::kConcat) {
    std::string text;
    for (std::size_t i = 0; i < plan.outputs.size(); ++i)
      text += (i > 0 ? "\n" : "") + output_text(outputs[plan.outputs[i]]);
    return text;
  }
  Value list = Value::array();
  for (const std::size_t index : plan.outputs) {
    Value entry = Value::object(
        {{"call", plan.calls[index].source}, {"verb", plan.calls[index].verb}, {"output", outputs[index]}});
    if (!details.empty() && details[index].is_object()) {
      for (const auto& [key, value] : details[index].as_object()) entry.set(key, value);
    }
    list.push(std::move(entry));
  }
  return dump_json(list);
}

}  // namespace instruct::instructions
