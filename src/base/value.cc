#include "base/value.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace instruct {
namespace {

[[noreturn]] void wrong_kind(const char* expected, const Value& value) {
  if (value.mark().line > 0) {
    raise(ErrorCategory::kBadData, "line {}, column {}: expected {}, got {}", value.mark().line, value.mark().column,
          expected, kind_name(value.kind()));
  }
  raise(ErrorCategory::kBadData, "expected {}, got {}", expected, kind_name(value.kind()));
}

}  // namespace

std::string_view kind_name(Value::Kind kind) {
  switch (kind) {
    case Value::Kind::kNull:
      return "null";
    case Value::Kind::kBool:
      return "bool";
    case Value::Kind::kInteger:
      return "integer";
    case Value::Kind::kFloat:
      return "float";
    case Value::Kind::kString:
      return "string";
    case Value::Kind::kArray:
      return "array";
    case Value::Kind::kObject:
      return "object";
  }
  return "unknown";
}

bool Value::as_bool() const {
  if (const auto* value = std::get_if<bool>(&data_)) return *value;
  wrong_kind("bool", *this);
}

std::int64_t Value::as_integer() const {
  if (const auto* value = std::get_if<std::int64_t>(&data_)) return *value;
  if (const auto* value = std::get_if<double>(&data_)) {
    if (std::floor(*value) == *value && std::abs(*value) < 9.0e18) return static_cast<std::int64_t>(*value);
  }
  wrong_kind("integer", *this);
}

double Value::as_double() const {
  if (const auto* value = std::get_if<double>(&data_)) return *value;
  if (const auto* value = std::get_if<std::int64_t>(&data_)) return static_cast<double>(*value);
  wrong_kind("number", *this);
}

const std::string& Value::as_string() const {
  if (const auto* value = std::get_if<std::string>(&data_)) return *value;
  wrong_kind("string", *this);
}

const Value::Array& Value::as_array() const {
  if (const auto* value = std::get_if<Array>(&data_)) return *value;
  wrong_kind("array", *this);
}

Value::Array& Value::as_array() {
  if (auto* value = std::get_if<Array>(&data_)) return *value;
  wrong_kind("array", *this);
}

const Value::Object& Value::as_object() const {
  if (const auto* value = std::get_if<Object>(&data_)) return *value;
  wrong_kind("object", *this);
}

Value::Object& Value::as_object() {
  if (auto* value = std::get_if<Object>(&data_)) return *value;
  wrong_kind("object", *this);
}

const Value* Value::find(std::string_view key) const {
  const auto* object = std::get_if<Object>(&data_);
  if (object == nullptr) return nullptr;
  for (const Member& member : *object) {
    if (member.first == key) return &member.second;
  }
  return nullptr;
}

Value* Value::find(std::string_view key) {
  return const_cast<Value*>(std::as_const(*this).find(key));
}

const Value& Value::at(std::string_view key) const {
  if (const Value* value = find(key)) return *value;
  if (mark_.line > 0) raise(ErrorCategory::kNotFound, "line {}: key '{}' is missing", mark_.line, key);
  raise(ErrorCategory::kNotFound, "key '{}' is missing", key);
}

Value& Value::set(std::string_view key, Value value) {
  if (is_null()) data_ = Object{};
  if (Value* existing = find(key)) {
    *existing = std::move(value);
    return *existing;
  }
  return as_object().emplace_back(std::string(key), std::move(value)).second;
}

Value& Value::push(Value value) {
  if (is_null()) data_ = Array{};
  return as_array().emplace_back(std::move(value));
}

std::size_t Value::size() const {
  if (const auto* array = std::get_if<Array>(&data_)) return array->size();
  if (const auto* object = std::get_if<Object>(&data_)) return object->size();
  return 0;
}

bool operator==(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_integer() && b.is_integer()) return a.as_integer() == b.as_integer();
    return a.as_double() == b.as_double();
  }
  if (a.kind() != b.kind()) return false;
  switch (a.kind()) {
    case Value::Kind::kNull:
      return true;
    case Value::Kind::kBool:
      return a.as_bool() == b.as_bool();
    case Value::Kind::kString:
      return a.as_string() == b.as_string();
    case Value::Kind::kArray:
      return a.as_array() == b.as_array();
    case Value::Kind::kObject:
      return a.size() == b.size() &&
             std::all_of(a.as_object().begin(), a.as_object().end(), [&b](const Value::Member& member) {
               const Value* other = b.find(member.first);
               return other != nullptr && *other == member.second;
             });
    default:
      return false;
  }
}

}  // namespace instruct
