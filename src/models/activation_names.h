// Activations by the names that configurations give them.
#pragma once

#include <string_view>

#include "base/error.h"
#include "ops/elementwise.h"

namespace instruct::models {

// Raises Unsupported naming `key`.
inline ops::Activation activation_from_name(std::string_view name, std::string_view key) {
  using ops::Activation;
  if (name == "gelu") return Activation::kGelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") return Activation::kGeluTanh;
  if (name == "relu") return Activation::kRelu;
  if (name == "silu" || name == "swish") return Activation::kSilu;
  raise(ErrorCategory::kUnsupported, "{} '{}': this program knows gelu, gelu_new, relu and silu", key, name);
}

}  // namespace instruct::models
