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

float to_float(Half value) {
  const std::uint32_t sign = static_cast<std::uint32_t>(value.bits & 0x8000U) << 16;
  const std::uint32_t exponent = value.bits >> 10 & 0x1FU;
  const std::uint32_t mantissa = value.bits & 0x3FFU;
  if (exponent == 0x1F) return std::bit_cast<float>(sign | 0x7F800000U | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  // Subnormal: mantissa * 2^-24 is exact in f32.
  const float magnitude = static_cast<float>(mantissa) * 0x1p-24F;
  return sign != 0 ? -magnitude : magnitude;
}

Half to_half(float value) {
  const auto bits = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>(bits >> 16 & 0x8000U);
  const std::uint32_t magnitude = bits & 0x7FFFFFFFU;
  if (magnitude > 0x7F800000U) return {static_cast<std::uint16_t>(sign | 0x7E00U | (magnitude >> 13 & 0x1FFU))};
  if (magnitude >= 0x47800000U) return {static_cast<std::uint16_t>(sign | 0x7C00U)};  // 2^16 and above
  if (magnitude < 0x38800000U) {                                                      // below 2^-14: subnormal
    // Adding 0.5 puts the half's last bit at the float's last bit; the addition rounds to nearest even.
    const float shifted = std::bit_cast<float>(magnitude) + 0.5F;
    return {static_cast<std::uint16_t>(sign | (std::bit_cast<std::uint32_t>(shifted) - 0x3F000000U))};
  }
  const std::uint32_t rounded = magnitude + 0xFFFU + (magnitude >> 13 & 1U) - 0x38000000U;
  return {static_cast<std::uint16_t>(sign | rounded >> 13)};
}

}  // namespace instruct::tensor
