// The names that configurations have for activations.
#pragma once

#include <string_view>

#include "base/error.h"
#include "models/json_fields.h"
#include "ops/elementwise.h"

namespace instruct::models {

// Raises Unsupported naming `key`, whose value it is, for a name that this program does not know.
inline ops::Activation activation_from_name(std::string_view name, std::string_view key) {
  if (name == "gelu") return ops::Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return ops::Activation::kGeluTanh;
  if (name == "relu") return ops::Activation::kRelu;
  if (name == "silu" || name == "swish") return ops::Activation::kSilu;
  raise(ErrorCategory::kUnsupported, "{} '{}': this program knows gelu, gelu_new, relu and silu", key, name);
}

// What a member names, `otherwise` where it is missing.
inline ops::Activation activation_or(const Value& json, const char* key, ops::Activation otherwise) {
  const Value* named = given(json, key);
  return named == nullptr ? otherwise : activation_from_name(named->as_string(), key);
}

}  // namespace instruct::models
