#include "instructions/continuation.h"

#include <algorithm>

#include "base/error.h"

namespace instruct::instructions {
namespace {

// Calls `visit(argument)` for each selector of a call, in order of writing.
template <typename CallType, typename Visit>
void for_each_selector(CallType& call, const Visit& visit) {
  for (auto& argument : call.arguments) {
    if (argument.kind == ArgumentKind::kSelector) visit(argument);
    for (auto& nested : argument.call) for_each_selector(nested, visit);
  }
}

bool is_numbered(const Selector& selector) {
  return selector.unit != TextUnit::kDocument && !selector.every;
}

// The call with the numbers taken out of its selectors.
std::string shape_of(Call call) {
  for_each_selector(call, [](Argument& argument) {
    Selector selector = parse_selector(argument.text);
    if (!is_numbered(selector)) return;
    const bool one = selector.first == selector.last;
    argument.text = fmt::format("{}{}{}{}", unit_name(selector.unit), one ? "" : "s",
                                selector.first.from_end ? " from the end" : "",
                                selector.last.from_end && !selector.first.from_end ? " to the last" : "");
  });
  return print_call(call);
}

std::vector<Selector> numbered_selectors(const Call& call) {
  std::vector<Selector> selectors = selectors_of(call);
  std::erase_if(selectors, [](const Selector& selector) { return !is_numbered(selector); });
  return selectors;
}

void require_movable(const std::vector<Call>& pattern) {
  for (const Call& call : pattern) {
    for (const Selector& selector : numbered_selectors(call)) {
      if (selector.first == selector.last || (!selector.first.from_end && !selector.last.from_end)) continue;
      raise(ErrorCategory::kBadData, "'...' cannot continue '{}': it reaches to the end already",
            print_selector(selector));
    }
  }
}

// Steps between the last two repetitions.
void steps_from_repetition(const Program& program, Continuation& result) {
  const std::size_t period = result.pattern.size();
  bool moves = false;
  for (std::size_t i = 0; i < period; ++i) {
    const std::vector<Selector> now = numbered_selectors(result.pattern[i]);
    const std::vector<Selector> before = numbered_selectors(program.calls[program.calls.size() - 2 * period + i]);
    std::vector<std::int64_t> steps;
    for (std::size_t s = 0; s < now.size(); ++s) {
      const std::int64_t step = now[s].first.number - before[s].first.number;
      if (step != now[s].last.number - before[s].last.number) {
        raise(ErrorCategory::kBadData,
              "'...' cannot tell how to go on from '{}' to '{}': the second is longer or shorter",
              print_selector(before[s]), print_selector(now[s]));
      }
      if (step < 0) {
        raise(ErrorCategory::kBadData, "'...' goes from '{}' back to '{}'; it can only go on to later parts",
              print_selector(before[s]), print_selector(now[s]));
      }
      moves = moves || step > 0;
      steps.push_back(step);
    }
    result.steps.push_back(std::move(steps));
  }
  if (!moves)
    raise(ErrorCategory::kBadData,
          "'...' cannot tell how to go on: the calls before it read the same part or name none");
}

// One repetition only: it moves on by all it covers.
void steps_from_extent(Continuation& result) {
  std::int64_t low = INT64_MAX;
  std::int64_t high = 0;
  for (const Call& call : result.pattern) {
    for (const Selector& selector : numbered_selectors(call)) {
      low = std::min({low, selector.first.number, selector.last.number});
      high = std::max({high, selector.first.number, selector.last.number});
    }
  }
  for (const Call& call : result.pattern) result.steps.emplace_back(numbered_selectors(call).size(), high - low + 1);
}

}  // namespace

std::vector<Selector> selectors_of(const Call& call) {
  std::vector<Selector> selectors;
  for_each_selector(call, [&](const Argument& argument) { selectors.push_back(parse_selector(argument.text)); });
  return selectors;
}

Continuation find_continuation(const Program& program) {
  const std::vector<Call>& calls = program.calls;
  std::vector<std::string> shapes;
  for (const Call& call : calls) shapes.push_back(shape_of(call));
  const auto same = [&](std::size_t end, std::size_t period) {
    return std::equal(shapes.begin() + static_cast<std::ptrdiff_t>(end - period),
                      shapes.begin() + static_cast<std::ptrdiff_t>(end),
                      shapes.end() - static_cast<std::ptrdiff_t>(period));
  };
  const auto start_pattern = [&](std::size_t period) {
    Continuation result;
    result.pattern.assign(calls.end() - static_cast<std::ptrdiff_t>(period), calls.end());
    result.first = calls.size() - period;
    while (result.first >= period && same(result.first, period)) result.first -= period;
    require_movable(result.pattern);
    return result;
  };

  for (std::size_t period = 1; 2 * period <= calls.size(); ++period) {
    if (!same(calls.size() - period, period)) continue;
    Continuation result = start_pattern(period);
    steps_from_repetition(program, result);
    return result;
  }
  std::size_t period = 0;
  while (period < calls.size() && !numbered_selectors(calls[calls.size() - 1 - period]).empty()) ++period;
  if (period == 0) {
    raise(ErrorCategory::kBadData,
          "'...' continues numbered parts of the document, and the call before it names none, such as '1st paragraph'");
  }
  Continuation result = start_pattern(period);
  steps_from_extent(result);
  return result;
}

Call continued_call(const Continuation& continuation, std::size_t place, std::int64_t repetitions) {
  Call call = continuation.pattern[place];
  std::size_t numbered = 0;
  for_each_selector(call, [&](Argument& argument) {
    Selector selector = parse_selector(argument.text);
    if (!is_numbered(selector)) return;
    const std::int64_t distance = continuation.steps[place][numbered++] * repetitions;
    selector.first.number += distance;
    selector.last.number += distance;
    argument.text = print_selector(selector);
  });
  return call;
}

}  // namespace instruct::instructions
