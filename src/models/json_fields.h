// Members of a JSON object that may be missing.
#pragma once

#include "base/value.h"

namespace instruct::models {

// A member that is neither absent nor null.
inline const Value* given(const Value& json, const char* key) {
  const Value* value = json.find(key);
  return value == nullptr || value->is_null() ? nullptr : value;
}
inline std::int64_t integer_or(const Value& json, const char* key, std::int64_t otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_integer();
}
inline double number_or(const Value& json, const char* key, double otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_double();
}
inline bool boolean_or(const Value& json, const char* key, bool otherwise) {
  const Value* value = given(json, key);
  return value == nullptr ? otherwise : value->as_bool();
}

}  // namespace instruct::models
