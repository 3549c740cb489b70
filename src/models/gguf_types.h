// The kinds of GGUF files that export writes, in one table.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "tensor/dtype.h"

namespace instruct::models {

struct GgufType {
  std::string_view name;  // as llama-quantize has it, in lower case
  std::uint32_t number;   // general.file_type
  tensor::DType dtype;    // of most matrices
};

std::span<const GgufType> gguf_types();
// Their names: "f32, f16, ... or q4_0".
std::string gguf_type_names();
// By name; case does not matter. Raises InvalidArgument, listing the names, for another.
const GgufType& gguf_type(std::string_view name);

}  // namespace instruct::models
