#include "tensor/dtype.h"

#include <array>
#include <string>

#include "base/error.h"
#include "base/text.h"

namespace instruct::tensor {
namespace {

constexpr std::array<DTypeInfo, kDTypeCount> kInfo{{
    {"f32", 1, 4},
    {"f16", 1, 2},
    {"bf16", 1, 2},
    {"i32", 1, 4},
    {"i64", 1, 8},
    {"u8", 1, 1},
    {"i8", 1, 1},
    {"u16", 1, 2},
    // Block sizes as GGUF lays them out: scales, offsets and packed values.
    {"q8_0", 32, 34},
    {"q4_0", 32, 18},
    {"q4_1", 32, 20},
    {"q5_0", 32, 22},
    {"q5_1", 32, 24},
    {"q4_k", 256, 144},
    {"q5_k", 256, 176},
    {"q6_k", 256, 210},
    {"q2_k", 256, 84},
    {"q3_k", 256, 110},
    {"iq4_nl", 32, 18},
    {"iq4_xs", 256, 136},
    {"mxfp4", 32, 17},
}};

}  // namespace

const DTypeInfo& info(DType dtype) {
  return kInfo[static_cast<std::size_t>(dtype)];
}

std::optional<DType> dtype_from_name(std::string_view name) {
  const std::string lower = to_lower_ascii(name);
  for (std::size_t i = 0; i < kInfo.size(); ++i) {
    if (kInfo[i].name == lower) return static_cast<DType>(i);
  }
  return std::nullopt;
}

std::int64_t bytes_of(DType dtype, std::int64_t elements) {
  const DTypeInfo& layout = info(dtype);
  INSTRUCT_CHECK(elements % layout.block_elements == 0);
  return elements / layout.block_elements * layout.block_bytes;
}

}  // namespace instruct::tensor
