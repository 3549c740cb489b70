#include "instructions/output_encoder.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/error.h"
#include "base/json.h"
#include "base/text.h"
#include "instructions/extraction.h"

namespace instruct::instructions {
namespace {

template <typename... Args>
[[noreturn]] void fail(const Instruction& instruction, fmt::format_string<Args...> format, Args&&... args) {
  raise(ErrorCategory::kBadData, "verb '{}': output: {}", instruction.verb,
        fmt::format(format, std::forward<Args>(args)...));
}

std::string text_of(const Instruction& instruction, const Value& value) {
  if (!value.is_string()) {
    fail(instruction, "expected {}, got {}", instruction.output.type == OutputType::kLabel ? "a label" : "text",
         kind_name(value.kind()));
  }
  if (const auto bad = find_invalid_utf8(value.as_string())) fail(instruction, "invalid UTF-8 at byte {}", *bad);
  return value.as_string();
}

// Labels that are numbers may be written without quotes.
std::string label_text(const Instruction& instruction, const Value& value) {
  return value.is_integer() ? std::to_string(value.as_integer()) : text_of(instruction, value);
}

const std::string* find_label(const OutputSpec& output, std::string_view text) {
  const auto found = std::find(output.labels.begin(), output.labels.end(), text);
  return found == output.labels.end() ? nullptr : &*found;
}

const std::string& label_of(const Instruction& instruction, std::string_view text) {
  if (const std::string* label = find_label(instruction.output, trim(text))) return *label;
  fail(instruction, "label '{}' is not in the set{}", text, did_you_mean(text, instruction.output.labels));
}

// As models write labels: other case, quotes around, a full stop behind.
const std::string& loose_label_of(const Instruction& instruction, std::string_view text) {
  std::string_view core = trim(text);
  if (const std::string* label = find_label(instruction.output, core)) return *label;
  constexpr std::string_view kAround = "\"'`*.";
  while (!core.empty() && kAround.find(core.front()) != std::string_view::npos) core.remove_prefix(1);
  while (!core.empty() && kAround.find(core.back()) != std::string_view::npos) core.remove_suffix(1);
  const std::string* match = nullptr;
  for (const std::string& label : instruction.output.labels) {
    if (label == core) return label;
    if (to_lower_ascii(label) != to_lower_ascii(core)) continue;
    if (match != nullptr) return label_of(instruction, text);  // labels that differ in case only
    match = &label;
  }
  return match != nullptr ? *match : label_of(instruction, text);
}

double parse_number(const Instruction& instruction, std::string_view text) {
  std::string_view digits = trim(text);
  if (digits.starts_with('+')) digits.remove_prefix(1);
  double number = 0;
  const auto [end, status] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
  if (digits.empty() || status != std::errc() || end != digits.data() + digits.size() || !std::isfinite(number)) {
    fail(instruction, "expected a number, got '{}'", text);
  }
  return number;
}

double checked_number(const Instruction& instruction, double number) {
  const OutputSpec& output = instruction.output;
  if (!std::isfinite(number)) fail(instruction, "expected a number, got {}", number);
  if (output.integer && std::floor(number) != number) fail(instruction, "expected a whole number, got {}", number);
  if (output.minimum && number < *output.minimum)
    fail(instruction, "{} is below the minimum {}", number, *output.minimum);
  if (output.maximum && number > *output.maximum)
    fail(instruction, "{} is above the maximum {}", number, *output.maximum);
  return number;
}

// Fixed notation without needless zeros.
std::string number_text(const Instruction& instruction, double number) {
  if (std::abs(number) >= std::pow(10.0, kMaxIntegerDigits))
    fail(instruction, "{} has more than {} digits", number, kMaxIntegerDigits);
  std::string text = fmt::format("{:.{}f}", number, kMaxDecimals);
  while (text.ends_with('0')) text.pop_back();
  if (text.ends_with('.')) text.pop_back();
  return text == "-0" ? "0" : text;
}

Value number_value(double number) {
  const bool whole = std::floor(number) == number && std::abs(number) < std::pow(10.0, kMaxIntegerDigits);
  return whole ? Value(static_cast<std::int64_t>(number)) : Value(number);
}

// A structured output given as a value or as its JSON text.
Value structured(const Instruction& instruction, const Value& output) {
  if (!output.is_string() || instruction.output.form->root().kind == SchemaKind::kString) return output;
  return parse_json(output.as_string(), fmt::format("verb '{}': output", instruction.verb));
}

void check_form(const Instruction& instruction, const Value& value) {
  if (const auto wrong = instruction.output.form->mismatch(value)) fail(instruction, "{}", *wrong);
}

Value in_set_order(const OutputSpec& output, const Value& labels) {
  Value sorted = Value::array();
  for (const std::string& label : output.labels) {
    for (const Value& given : labels.as_array()) {
      if (given == Value(label)) sorted.push(given);
    }
  }
  return sorted;
}

Value label_list(const Instruction& instruction, Value list) {
  if (list.is_array()) {
    for (Value& item : list.as_array()) {
      if (item.is_integer()) item = Value(std::to_string(item.as_integer()));
      if (item.is_string()) label_of(instruction, item.as_string());
    }
  }
  check_form(instruction, list);
  return in_set_order(instruction.output, list);
}

// Bytes of a long span that an error quotes.
constexpr std::size_t kShownBytes = 80;

void check_span(const Instruction& instruction, const std::string& span, const Value* variables) {
  const Value* text = variables == nullptr ? nullptr : variables->find(instruction.output.from);
  if (text == nullptr || !text->is_string()) return;
  if (text->as_string().find(span) == std::string::npos) {
    std::string shown = span.substr(0, kShownBytes);
    shown.resize(shown.size() - incomplete_utf8_tail(shown));
    fail(instruction, "'{}{}' is not a part of '{}'", shown, shown.size() < span.size() ? "..." : "",
         instruction.output.from);
  }
}

}  // namespace

std::string encode_output(const Instruction& instruction, const Value& output, const Value* variables) {
  switch (instruction.output.type) {
    case OutputType::kText:
    case OutputType::kSentences:
      return text_of(instruction, output);
    case OutputType::kSpan: {
      std::string span = text_of(instruction, without_places(instruction, output));
      check_span(instruction, span, variables);
      return span;
    }
    case OutputType::kLabel:
      return label_of(instruction, label_text(instruction, output));
    case OutputType::kNumber:
      if (!output.is_string() && !output.is_number())
        fail(instruction, "expected a number, got {}", kind_name(output.kind()));
      return number_text(instruction,
                         checked_number(instruction, output.is_string() ? parse_number(instruction, output.as_string())
                                                                        : output.as_double()));
    case OutputType::kLabels:
      return dump_json(label_list(instruction, structured(instruction, output)));
    case OutputType::kList:
    case OutputType::kJson: {
      const Value value = without_places(instruction, structured(instruction, output));
      check_form(instruction, value);
      return dump_json(value);
    }
  }
  raise(ErrorCategory::kInternal, "output type {} is not handled", static_cast<int>(instruction.output.type));
}

Value decode_output(const Instruction& instruction, std::string_view text) {
  switch (instruction.output.type) {
    case OutputType::kText:
    case OutputType::kSpan:
    case OutputType::kSentences:
      return Value(trim(text));
    case OutputType::kLabel:
      return Value(loose_label_of(instruction, text));
    case OutputType::kNumber:
      return number_value(checked_number(instruction, parse_number(instruction, text)));
    case OutputType::kLabels:
      return label_list(instruction, parse_json(text, fmt::format("verb '{}': output", instruction.verb)));
    case OutputType::kList:
    case OutputType::kJson: {
      Value value = parse_json(text, fmt::format("verb '{}': output", instruction.verb));
      check_form(instruction, value);
      return value;
    }
  }
  raise(ErrorCategory::kInternal, "output type {} is not handled", static_cast<int>(instruction.output.type));
}

std::string output_text(const Value& value) {
  return value.is_string() ? value.as_string() : dump_json(value);
}

}  // namespace instruct::instructions
