#include "models/gguf_types.h"

#include <algorithm>

#include "base/error.h"
#include "base/text.h"

namespace instruct::models {
namespace {

using tensor::DType;

constexpr GgufType kTypes[] = {
    {"f32", 0, DType::kF32},   {"f16", 1, DType::kF16},   {"bf16", 32, DType::kBF16}, {"q8_0", 7, DType::kQ8_0},
    {"q5_1", 9, DType::kQ5_1}, {"q5_0", 8, DType::kQ5_0}, {"q4_1", 3, DType::kQ4_1},  {"q4_0", 2, DType::kQ4_0},
};

}  // namespace

std::span<const GgufType> gguf_types() {
  return kTypes;
}

std::string gguf_type_names() {
  std::string names;
  for (const GgufType& type : kTypes) {
    if (!names.empty()) names += &type == std::end(kTypes) - 1 ? " or " : ", ";
    names += type.name;
  }
  return names;
}

const GgufType& gguf_type(std::string_view name) {
  const std::string lower = to_lower_ascii(name);
  const auto* found =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const GgufType& type) { return type.name == lower; });
  if (found != std::end(kTypes)) return *found;
  raise(ErrorCategory::kInvalidArgument, "--quantize {}: --format gguf takes {}", name, gguf_type_names());
}

}  // namespace instruct::models
