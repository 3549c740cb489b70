#include "instructions/field_reader.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "base/text.h"

namespace instruct::instructions {
namespace {

std::vector<std::string> strings(std::span<const std::string_view> names) {
  return {names.begin(), names.end()};
}

}  // namespace

std::vector<std::string> FieldReader::problems() const {
  std::vector<Problem> sorted = problems_;
  std::stable_sort(sorted.begin(), sorted.end(), [](const Problem& a, const Problem& b) {
    return a.mark.line != b.mark.line ? a.mark.line < b.mark.line : a.mark.column < b.mark.column;
  });
  std::vector<std::string> result;
  for (const Problem& problem : sorted) {
    result.push_back(fmt::format("{}:{}:{}: {}", origin_, problem.mark.line, problem.mark.column, problem.message));
  }
  return result;
}

void FieldReader::problem(Mark mark, std::string message) {
  problems_.push_back({mark, std::move(message)});
}

void FieldReader::problem_at_key(const Value& parent, std::string_view key, std::string message) {
  const Value* value = parent.find(key);
  problem(value == nullptr ? parent.mark() : source_.key(key, value->mark()), std::move(message));
}

void FieldReader::problem_inside(const Value& value, Mark inside, std::string message) {
  problem(source_.inside_value(value.mark(), value.as_string(), inside), std::move(message));
}

void FieldReader::problem_inside(const Value& value, std::string_view error, std::string_view parser_origin,
                                 std::string_view what) {
  auto [mark, message] = split_located_message(error, parser_origin);
  problem_inside(value, mark, fmt::format("{}{}", what, message));
}

void FieldReader::known_keys(const Value& object, std::span<const std::string_view> known, std::string_view where) {
  for (const auto& [key, member] : object.as_object()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    problem_at_key(object, key, fmt::format("unknown key '{}'{}{}", key, where, did_you_mean(key, strings(known))));
  }
}

std::optional<std::string> FieldReader::text(const Value& parent, std::string_view key) {
  const Value* value = parent.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (value->is_string()) return value->as_string();
  problem(value->mark(), fmt::format("'{}' expects text, got {}", key, kind_name(value->kind())));
  return std::nullopt;
}

std::optional<bool> FieldReader::boolean(const Value& parent, std::string_view key) {
  const Value* value = parent.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (value->is_bool()) return value->as_bool();
  problem(value->mark(), fmt::format("'{}' expects true or false, got {}", key, kind_name(value->kind())));
  return std::nullopt;
}

std::optional<double> FieldReader::number(const Value& parent, std::string_view key) {
  const Value* value = parent.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (value->is_number() && std::isfinite(value->as_double())) return value->as_double();
  problem(value->mark(), fmt::format("'{}' expects a number, got {}", key, kind_name(value->kind())));
  return std::nullopt;
}

std::optional<std::int64_t> FieldReader::whole_number(const Value& parent, std::string_view key, std::int64_t minimum) {
  const Value* value = parent.find(key);
  if (value == nullptr || value->is_null()) return std::nullopt;
  if (value->is_integer() && value->as_integer() >= minimum) return value->as_integer();
  const std::string got =
      value->is_integer() ? std::to_string(value->as_integer()) : std::string(kind_name(value->kind()));
  problem(value->mark(), fmt::format("'{}' expects a whole number from {}, got {}", key, minimum, got));
  return std::nullopt;
}

std::optional<std::size_t> FieldReader::choice(const Value& parent, std::string_view key,
                                               std::span<const std::string_view> names) {
  const auto given = text(parent, key);
  if (!given) return std::nullopt;
  const auto found = std::find(names.begin(), names.end(), *given);
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  problem(parent.at(key).mark(), fmt::format("unknown {} '{}'{}", key, *given, did_you_mean(*given, strings(names))));
  return std::nullopt;
}

const Value* FieldReader::object(const Value& parent, std::string_view key) {
  const Value* value = parent.find(key);
  if (value == nullptr || value->is_null()) return nullptr;
  if (value->is_object()) return value;
  problem(value->mark(), fmt::format("'{}' expects named entries, got {}", key, kind_name(value->kind())));
  return nullptr;
}

std::vector<std::string> FieldReader::texts(const Value& parent, std::string_view key, Items items) {
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
    } else if (items == Items::kTextsAndNumbers && item.is_integer()) {
      result.push_back(std::to_string(item.as_integer()));
    } else if (item.is_bool()) {
      // YAML 1.1 habits: labels such as yes and true. Quoting says which is meant.
      problem(item.mark(),
              fmt::format("'{}' expects texts, got {}: put it in quotes", key, item.as_bool() ? "true" : "false"));
    } else {
      problem(item.mark(), fmt::format("'{}' expects texts, got {}", key, kind_name(item.kind())));
    }
  }
  return result;
}

}  // namespace instruct::instructions
